# How rules get at stanzas, and write words for the shell.

# $(call get,MODEL,NAME): what the stanza says, or the default.
get = $(strip $(if $(filter undefined,$(origin $1_$2)),$(DEFAULT_$2),$($1_$2)))
# $(call path,MODEL,NAME): the same for a file or folder. The shell may have left a ~ in it, and a
# program would take a - at its beginning for an option. Spaces, which Make takes for separators,
# become `?` until it is used in one of these two ways:
path            = $(patsubst -%,./-%,$(call at_home,$(call placed,$(subst $(space),?,$(call get,$1,$2)))))
at_home         = $(patsubst ~/%,$(HOME)/%,$1)
# What is relative is seen from PATHS_FROM.
from           := $(if $(PATHS_FROM),$(call at_home,$(patsubst %/,%,$(patsubst %/.,%,$(subst $(space),?,$(PATHS_FROM)))))/)
placed          = $(if $(filter /% ~/% none,$1),$1,$(addprefix $(from),$1))
as_prerequisite = $(subst ?,\$(space),$1)
quoted          = '$(subst ?,$(space),$(subst ','\'',$1))'
# $(call flag,MODEL,NAME,--flag): the flag if the variable is 1.
flag   = $(if $(filter 1,$(call get,$1,$2)),$3)
# $(call option,MODEL,NAME,--option): the option with its value, if there is one.
option = $(if $(call get,$1,$2),$3 $(call quoted,$(call get,$1,$2)))
# $(call options,MODEL,NAMES), $(call switches,MODEL,NAMES): the flags of these names, --pad_value for
# PAD_VALUE. $(call unusual,MODEL,NAMES): only those whose value is not what the tool does by itself.
options  = $(foreach each,$2,$(call option,$1,$(each),--$(call lower,$(each))))
switches = $(foreach each,$2,$(call flag,$1,$(each),--$(call lower,$(each))))
unusual  = $(foreach each,$2,$(if $(filter undefined,$(origin $1_$(each))),,$(if \
	$(filter-out $(DEFAULT_$(each)),$($1_$(each))),$(call option,$1,$(each),--$(call lower,$(each))))))
lower    = $(subst A,a,$(subst B,b,$(subst C,c,$(subst D,d,$(subst E,e,$(subst F,f,$(subst G,g,$(subst H,h,$(subst I,i,$(subst J,j,$(subst K,k,$(subst L,l,$(subst M,m,$(subst N,n,$(subst O,o,$(subst P,p,$(subst Q,q,$(subst R,r,$(subst S,s,$(subst T,t,$(subst U,u,$(subst V,v,$(subst W,w,$(subst X,x,$(subst Y,y,$(subst Z,z,$1))))))))))))))))))))))))))
# $(call validating,TEXT): the text, unless VALIDATE=0.
validating = $(if $(filter 0,$(VALIDATE)),,$1)
# $(call differs,FILE,TEXT): FORCE unless the file holds just this text. Reads, forks nothing.
differs = $(call different,x$(strip $(file <$1)),x$(strip $2))
different = $(if $(and $(findstring $1,$2),$(findstring $2,$1)),,FORCE)
# $(call shell_word,TEXT): any text as one word, on which no ? is a space.
shell_word = '$(subst ','\'',$1)'
