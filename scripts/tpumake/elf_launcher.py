"""Write the `python3.10` program without a compiler, and mend libraries for new loaders.

A Python that lives in a shared library needs a program of a few bytes that calls it. The host may
have no C compiler, so the program is laid out here: an x86-64 ELF file whose start code hands
``Py_BytesMain`` to ``__libc_start_main``, which is what a linker makes of
``int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }``.

Sources: System V ABI, AMD64 supplement, chapters 3 and 5; elf(5).
"""

from __future__ import annotations

import struct

__all__ = ["Strings", "align", "elf_header", "launcher", "program_header", "with_plain_stack"]

PAGE = 0x1000
INTERPRETER = b"/lib64/ld-linux-x86-64.so.2\0"
R_X86_64_GLOB_DAT = 6
(DT_NULL, DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT, DT_STRSZ, DT_SYMENT) = (
    0, 1, 5, 6, 7, 8, 9, 10, 11,
)  # fmt: skip
# The old DT_RPATH, not DT_RUNPATH: it also serves the libraries that the extension modules need.
DT_RPATH = 15
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_PHDR, PT_GNU_STACK = 1, 2, 3, 6, 0x6474E551
READ_EXECUTE, READ_WRITE, READ = 5, 6, 4


def launcher(library: str, main: str, rpath: str) -> bytes:
    """Give the bytes of a program that runs ``main(argc, argv)`` of a shared library.

    :param library: file name of the library, as in its own soname (``libpython3.10.so.1.0``)
    :param main: exported function ``int (int argc, char **argv)``
    :param rpath: folders to look for libraries in, colon separated; ``$ORIGIN`` is the program's
    """
    strings = Strings()
    needed = [strings.add(library), strings.add("libc.so.6")]
    symbols = [strings.add(main), strings.add("__libc_start_main")]
    rpath_offset = strings.add(rpath)

    # First page group, read and execute: headers, tables, code.
    interp_at = 64 + 56 * 6
    strtab_at = align(interp_at + len(INTERPRETER))
    symtab_at = align(strtab_at + len(strings.data))
    # An all-zero symbol comes first by rule; ours are global (1), untyped, undefined here.
    symtab = bytes(24) + b"".join(struct.pack("<IBBHQQ", s, 1 << 4, 0, 0, 0, 0) for s in symbols)
    rela_at = symtab_at + len(symtab)
    rela_size = 24 * len(symbols)
    code_at = align(rela_at + rela_size, 16)

    # Second page group, read and write: the dynamic section and the two addresses to fill in.
    dynamic_at = PAGE
    dynamic = [(DT_NEEDED, offset) for offset in needed] + [
        (DT_RPATH, rpath_offset),
        (DT_STRTAB, strtab_at),
        (DT_STRSZ, len(strings.data)),
        (DT_SYMTAB, symtab_at),
        (DT_SYMENT, 24),
        (DT_RELA, rela_at),
        (DT_RELASZ, rela_size),
        (DT_RELAENT, 24),
        (DT_NULL, 0),
    ]
    dynamic_bytes = b"".join(struct.pack("<QQ", *entry) for entry in dynamic)
    slots_at = dynamic_at + len(dynamic_bytes)
    slots = [slots_at, slots_at + 8]
    rela = b"".join(
        struct.pack("<QQq", slot, index << 32 | R_X86_64_GLOB_DAT, 0)
        for index, slot in enumerate(slots, start=1)
    )
    code = _start_code(code_at, *slots)
    text_end = code_at + len(code)
    data_end = slots_at + 16

    segments = [
        # The loader learns from PT_PHDR at which address it has put the program.
        (PT_PHDR, READ, 64, 56 * 6, 8),
        (PT_INTERP, READ, interp_at, len(INTERPRETER), 1),
        (PT_LOAD, READ_EXECUTE, 0, text_end, PAGE),
        (PT_LOAD, READ_WRITE, dynamic_at, data_end - dynamic_at, PAGE),
        (PT_DYNAMIC, READ_WRITE, dynamic_at, len(dynamic_bytes), 8),
        (PT_GNU_STACK, READ_WRITE, 0, 0, 16),
    ]
    image = bytearray(data_end)
    for offset, part in [
        (0, elf_header(code_at, len(segments))),
        (64, b"".join(program_header(*segment) for segment in segments)),
        (interp_at, INTERPRETER),
        (strtab_at, bytes(strings.data)),
        (symtab_at, symtab),
        (rela_at, rela),
        (code_at, code),
        (dynamic_at, dynamic_bytes),
    ]:
        image[offset : offset + len(part)] = part
    return bytes(image)


def with_plain_stack(image: bytes) -> bytes | None:
    """A library's bytes without its wish for an executable stack; None if it has no such wish.

    Such a wish is mostly an oversight of who assembled a part of it, and glibc from 2.41 on loads
    no library that has it into a running program.
    """
    if len(image) < 64 or image[:5] != b"\x7fELF\x02":
        return None
    (headers,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for at in range(headers, headers + size * count, size):
        kind, flags = struct.unpack_from("<II", image, at)
        if kind == PT_GNU_STACK and flags != READ_WRITE:
            return image[: at + 4] + struct.pack("<I", READ_WRITE) + image[at + 8 :]
    return None


def _start_code(at: int, main_slot: int, start_slot: int) -> bytes:
    """The program's first instructions, at address ``at``; argc and argv are on the stack."""
    code = bytearray()
    code += b"\x31\xed"  # xor ebp, ebp        the outermost frame, as the ABI asks
    code += b"\x49\x89\xd1"  # mov r9, rdx         rtld_fini, left by the loader
    code += b"\x5e"  # pop rsi             argc
    code += b"\x48\x89\xe2"  # mov rdx, rsp        argv
    code += b"\x48\x83\xe4\xf0"  # and rsp, -16        the ABI's alignment for calls
    code += b"\x50\x54"  # push rax; push rsp  stack_end
    code += b"\x31\xc9\x45\x31\xc0"  # xor ecx, ecx; xor r8d, r8d   no init, no fini
    for opcode, slot in ((b"\x48\x8b\x3d", main_slot), (b"\xff\x15", start_slot)):
        # mov rdi, [rip + slot] and call [rip + slot]: relative to the next instruction
        end = at + len(code) + len(opcode) + 4
        code += opcode + struct.pack("<i", slot - end)
    return bytes(code) + b"\xf4"  # hlt: __libc_start_main does not return


def elf_header(entry: int, segments: int) -> bytes:
    """The file's first 64 bytes; the program headers follow."""
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64-bit, little endian, version 1
    shared_object, x86_64 = 3, 62
    return ident + struct.pack(
        "<HHIQQQIHHHHHH", shared_object, x86_64, 1, entry, 64, 0, 0, 64, 56, segments, 0, 0, 0
    )


def program_header(kind: int, flags: int, offset: int, size: int, align: int) -> bytes:
    """One segment, whose place in the file is its place in memory."""
    return struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, align)


def align(value: int, to: int = 8) -> int:
    """The next multiple of ``to``."""
    return -(-value // to) * to


class Strings:
    """An ELF string table under construction."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        """Append a text and give its place."""
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset
