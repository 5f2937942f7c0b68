# Help. Printing takes no process: nothing is built, not even an environment.

define help_text
make MODEL_VARIANT           build a model, for instance: make $(firstword $(MODELS))_$(firstword $(VARIANTS))
make convert MODEL=~/best.onnx IMAGES=~/photos
                             build a network of yours that has no stanza: one is inferred, and shown
                             (NAME=gate VARIANT=int8, and any stanza variable: SCALE=0.0039216)
make add MODEL=… IMAGES=…    append that stanza to $(STANZAS)
make MODEL, make all         every variant of a model's stanza; of all models, with a table at the end
make all LIST=FILE -k        what a file lists, a target a line; -k goes on after failures
make list                    what can be built
make -s matrix               the same as jobs for GitHub, in JSON: of all stanzas, or LIST=FILE; CHANGED=REVISION: only
                             what has changed since then
make MODEL_VARIANT.check     all that can be known beforehand: stanza, network, pictures, machine (MODEL.check; JSON=1)
make doctor                  the machine, and all models in brief (JSON=1)
make MODEL_VARIANT.key       what the keys of its stages are made of (JSON=1: all of it)
make MODEL_VARIANT.info      what the model is, and what DEVICE will do with it: decoder, classes, memory, parts (JSON=1)
make info FILE=x.cvimodel    the same of any model file
make MODEL.outputs           where the network's head is, why, and what each device wants of it (JSON=1)
make MODEL_VARIANT.detect    what it finds in IMAGE=photo.jpg, beside the float network (MODEL.detect: all variants;
                             CONF=0.25 IOU=0.7 OUT=drawing.png JSON=1)
make MODEL_VARIANT.layers    which layers its precision harms, measured on COUNT=4 samples (MODEL.layers; JSON=1)
make MODEL_VARIANT.eval      what quantisation cost: mAP on EVAL_DATASET's pictures, beside the float network (MODEL.eval: all
                             variants; QUICK=1 without the emulator; CONF=0.25 JSON=1)
make MODEL_VARIANT.report    all that is known of it on one page, to look at and to keep (MODEL.report; JSON=1)
make MODEL_VARIANT.deploy    put it onto the device at DEVICE_HOST=192.168.42.1, verified there; the model before is kept
                             (MODEL_VARIANT.deploy-rollback: back to that; DRY_RUN=1: only tell the steps)
make MODEL_VARIANT.bench     its times on the device at DEVICE_HOST=…, by the device's own program (COUNT=10
                             IMAGE=photo.jpg JSON=1)
make compare A=… B=…         two builds side by side: A=MODEL_int8 B=MODEL_bf16
make MODEL_VARIANT.reproduce build it twice, under other conditions, and compare all bytes
make MODEL_VARIANT.bugreport what a maintainer would ask for, in one archive; make bugreport: of what failed last
                             (BUGREPORT="weights pictures": these, too)
make cache                   what the cache of stages and the remote one hold and did (JSON=1)
make setup                   both environments; builds do it by themselves (EXTRA="$(KNOWN_EXTRAS)": those, too)
make test-fast               the project's tests that need no toolchain, in under a minute
make test, make test-full    all of them; with those that take long
make lint                    ruff, the Makefile, shellcheck
make bench                   how long make takes, beside DVC and Snakemake with the same stages (TARGET=yolo11n_int8
                             ROWS=guides,cold,variant,parallel,calibration: builds, too, beside the guides' commands;
                             ROWS=all ROUNDS=3 PICTURES=25,100)
make lock                    the lock files anew
make clean, make distclean   remove what was built; the environments too; clean-extras: only the extras

Models ($(STANZAS)): $(MODELS)
Variants:           $(VARIANTS_$(CHIP)) (of $(CHIP); chips: $(CHIPS))

Knobs, as they are now:$(foreach each,$(KNOBS),$(newline)  $(each)=$(call shown,$(each)))

In a stanza, or on the command line with the model's name before it (make $(firstword $(MODELS))_int8
$(firstword $(MODELS))_ONNX=~/best.onnx), with the default:$(foreach part,$(STANZA_PARTS),$(newline)$(newline) $(part):$(foreach each,$(STANZA_$(part)),$(newline)  <model>_$(each) = $(call default,<model>,$(each))))
endef

default = $(DEFAULT_$2)
# An address may hold a password.
shown = $(if $(and $(filter CACHE_REMOTE,$1),$(findstring @,$($1))),$(firstword $(subst ://, ,$($1)))://…@$(lastword $(subst @, ,$($1))),$($1))

.PHONY: help
help:
	@:$(info $(help_text))
