"""Writes files into a prefix, so that what is half written passes for nothing.

All of it is first written into a folder beside, in the prefix, and then renamed to its
place. What others find the library by, DISCOVERY, goes first and comes last.
"""

import errno
import fcntl
import os
import shutil
import stat
import tempfile

_STAGING = ".grapnel-install-"

# Of Grapnel's own, by whatever version. Folders are replaced whole; nothing old stays.
OWN_FOLDERS = [
    "include/grapnel", "lib/cmake/Grapnel", "lib/grapnel", "share/doc/grapnel", "share/grapnel"]
OWN_FILES = ["bin/grapnel", "lib/libgrapnel.a", "lib/libgrapnel.so", "lib/libgrapnel.so.0"]
DISCOVERY = ["lib/cmake/Grapnel", "lib/pkgconfig/grapnel-static.pc", "lib/pkgconfig/grapnel.pc"]


class InstallError(Exception):
    """Something about the prefix, or about what is to be installed, that its user can change."""


def _unit(path):
    """What is renamed as a whole to bring the file `path` in: a folder of our own, or itself."""
    for folder in OWN_FOLDERS:
        if path.startswith(folder + "/"):
            return folder
    return path


def _make_folders(path):
    """Makes a folder and those above it, for everybody to read whatever the umask is."""
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


class Staging:
    """A prefix to be, in a folder beside its parts. One at a time in a prefix; use it by `with`.

    add and link write it; publish makes it the prefix. Without publish the prefix is as it was.
    """

    def __init__(self, prefix):
        self.prefix = prefix
        self._units = set()

    def __enter__(self):
        if os.path.lexists(self.prefix) and not os.path.isdir(self.prefix):
            raise InstallError(f"{self.prefix}: is not a folder")
        _make_folders(self.prefix)
        self._lock = os.open(self.prefix, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._start()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def _start(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError(f"{self.prefix}: somebody else is installing there now") from None
        # What killed ones left: whoever holds the lock is alone.
        for name in os.listdir(self.prefix):
            if name.startswith(_STAGING):
                shutil.rmtree(os.path.join(self.prefix, name))
        self._folder = tempfile.mkdtemp(prefix=_STAGING, dir=self.prefix)

    def __exit__(self, *_):
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _place(self, path):
        self._units.add(_unit(path))
        place = os.path.join(self._folder, "new", path)
        _make_folders(os.path.dirname(place))
        return place

    def add(self, path, source):
        """Copies the file `source`."""
        place = self._place(path)
        shutil.copyfile(source, place)
        runs = path.startswith("bin/") or ".so" in os.path.basename(path)
        os.chmod(place, 0o755 if runs else 0o644)

    def link(self, path, target):
        """Makes a symbolic link that says `target`."""
        os.symlink(target, self._place(path))

    def check(self):
        """Raises if something is in the way of one of the files, or they may not be written."""
        for unit in sorted(self._units):
            place = os.path.join(self.prefix, unit)
            folder = os.path.dirname(place)
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            if not os.path.isdir(folder):
                raise InstallError(f"{folder}: is in the way, it is not a folder")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise InstallError(f"{folder}: {os.strerror(errno.EACCES)}")
            if not os.path.lexists(place):
                continue
            there = stat.S_ISDIR(os.lstat(place).st_mode)
            if there != (unit in OWN_FOLDERS):
                what = "a folder" if there else "not a folder"
                raise InstallError(f"{place}: is in the way, it is {what}")

    def publish(self):
        """Renames all into place. If that ends early, DISCOVERY isn't there."""
        self.check()
        for unit in DISCOVERY:
            self._put_aside(unit)
        for unit in sorted(self._units - set(DISCOVERY)):
            self._put_in(unit)
        for unit in OWN_FOLDERS + OWN_FILES:
            if unit not in self._units:
                self._put_aside(unit)
        for unit in DISCOVERY:
            if unit in self._units:
                self._put_in(unit)

    def _put_aside(self, unit):
        place = os.path.join(self.prefix, unit)
        if os.path.lexists(place):
            old = os.path.join(self._folder, "old", unit)
            _make_folders(os.path.dirname(old))
            os.rename(place, old)

    def _put_in(self, unit):
        place = os.path.join(self.prefix, unit)
        _make_folders(os.path.dirname(place))
        if unit in OWN_FOLDERS:  # A file takes the place of another by itself.
            self._put_aside(unit)
        os.rename(os.path.join(self._folder, "new", unit), place)
