"""The dynamic section of 64-bit little-endian ELF files: what they need and where they look."""

import struct

_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_PT_LOAD, _PT_DYNAMIC = 1, 2
_SHT_DYNSYM = 11


class ElfError(Exception):
    pass


_MAGIC = b"\x7fELF\x02\x01"


def is_elf(path):
    """Whether it is a 64-bit little-endian ELF file, by how it begins."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class DynamicFile:
    """A program or shared library, read whole. Changes stay in memory until they are written."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self._bytes = bytearray(file.read())
        if not self._bytes.startswith(_MAGIC):
            raise ElfError(f"{path}: is no 64-bit little-endian ELF file")
        try:
            self._segments = self._read_segments()
            self._entries = self._read_dynamic()
        except struct.error as e:
            raise ElfError(f"{path}: ends too early") from e
        strtab = [value for tag, value in self._entries if tag == _DT_STRTAB]
        if not strtab:
            raise ElfError(f"{path}: has no dynamic section")
        self._strings = self._file_offset(strtab[0])

    def _read_segments(self):
        (offset,) = struct.unpack_from("<Q", self._bytes, 32)
        size, count = struct.unpack_from("<HH", self._bytes, 54)
        # Each (type, flags, file offset, address, physical address, size in the file, ...).
        return [struct.unpack_from("<IIQQQQQQ", self._bytes, offset + i * size)
                for i in range(count)]

    def _read_dynamic(self):
        entries = []
        for kind, _, offset, _, _, size, _, _ in self._segments:
            if kind == _PT_DYNAMIC:
                entries += struct.iter_unpack("<qQ", self._bytes[offset:offset + size // 16 * 16])
        return entries

    def _file_offset(self, address):
        for kind, _, offset, start, _, size, _, _ in self._segments:
            if kind == _PT_LOAD and start <= address < start + size:
                return offset + address - start
        raise ElfError(f"{self.path}: no segment holds the address {address:#x}")

    def _string(self, offset):
        start = self._strings + offset
        return self._bytes[start:self._bytes.index(0, start)].decode()

    def needed(self):
        """The libraries that it needs, in the order in which they are loaded."""
        return [self._string(value) for tag, value in self._entries if tag == _DT_NEEDED]

    def runpath(self):
        """Where it looks for them: the folders of RUNPATH, or of RPATH."""
        return [folder for tag, value in self._entries if tag in (_DT_RPATH, _DT_RUNPATH)
                for folder in self._string(value).split(":") if folder]

    def _names_in(self, start, end):
        """What of the dynamic strings [start, end) is also the name of something."""
        offsets = [value for tag, value in self._entries if tag in (_DT_NEEDED, _DT_SONAME)]
        (table,) = struct.unpack_from("<Q", self._bytes, 40)
        size, count = struct.unpack_from("<HH", self._bytes, 58)
        for i in range(count):
            section = struct.unpack_from("<IIQQQQIIQQ", self._bytes, table + i * size)
            if section[1] == _SHT_DYNSYM:
                symbols = self._bytes[section[4]:section[4] + section[5]]
                offsets += [symbol[0] for symbol in struct.iter_unpack("<IBBHQQ", symbols)]
        return [self._string(offset) for offset in offsets if start <= offset < end]

    def shorten_runpath(self, folders):
        """Makes it look in `folders` only. They need no more room than what is there now."""
        path = ":".join(folders).encode()
        found = [value for tag, value in self._entries if tag in (_DT_RPATH, _DT_RUNPATH)]
        if not found:
            raise ElfError(f"{self.path}: has no RUNPATH")
        for offset in found:
            old = len(self._string(offset))
            if len(path) > old:
                raise ElfError(f"{self.path}: RUNPATH has {old} bytes, {len(path)} are needed")
            # The linker may have put a name into the end of a longer string.
            names = self._names_in(offset + 1, offset + old)
            if names:
                raise ElfError(f"{self.path}: RUNPATH is also the name \"{names[0]}\"")
            start = self._strings + offset
            self._bytes[start:start + old] = path.ljust(old, b"\0")

    def write(self):
        """Writes it into the file that it was read from, which keeps its mode."""
        with open(self.path, "r+b") as file:
            file.write(self._bytes)
