"""Writes files into a prefix, so that what is half written passes for nothing.

All of it is first written into a folder beside, in the prefix, and then renamed to its
place. What others find the library by, DISCOVERY, goes first and comes last. What it takes
the place of goes only when all has come, or else is put back.
"""

import contextlib
import errno
import fcntl
import os
import re
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


_SHARED_LIBRARY = re.compile(r"\.so(\.\d+)*$")


def is_loaded(path):
    """Whether the file `path` of a prefix is a program or a shared library."""
    return (path.startswith("bin/") or
            path.startswith("lib/") and _SHARED_LIBRARY.search(path) is not None)


def _unit(path):
    """What is renamed as a whole to bring the file `path` in: a folder of our own, or itself."""
    for folder in OWN_FOLDERS:
        if path.startswith(folder + "/"):
            return folder
    return path


def _make_folders(path):
    """Makes a folder and those above it, for everybody to read whatever the umask is.

    Returns those that it has made.
    """
    if os.path.isdir(path):
        return []
    made = _make_folders(os.path.dirname(path))
    os.mkdir(path)
    os.chmod(path, 0o755)
    return made + [path]


def _mounts():
    """Where something is mounted, a file or a folder, as this process sees it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        # A space is written as \040.
        return [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), line.split()[4])
                for line in lines]


@contextlib.contextmanager
def _errors_name(path):
    """Has a failed call name `path`, which the user knows, and not where its file is now."""
    try:
        yield
    except OSError as e:
        raise InstallError(f"{path}: {e.strerror}") from e


class Staging:
    """A prefix to be, in a folder beside its parts. One at a time in a prefix; use it by `with`.

    add, write and link fill it; publish makes it the prefix. Without publish the prefix is as it
    was, and isn't there if it wasn't.
    """

    def __init__(self, prefix):
        self.prefix = prefix
        self._units = set()
        self._made = []  # Folders of the prefix, and above.
        self._moves = []  # Of publish: (unit, from, to), the newest last.
        self._published = False

    def __enter__(self):
        if os.path.lexists(self.prefix) and not os.path.isdir(self.prefix):
            raise InstallError(f"{self.prefix}: is not a folder")
        self._made = _make_folders(self.prefix)
        self._lock = os.open(self.prefix, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def _start(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError(f"{self.prefix}: somebody else is installing there now") from None
        with _errors_name(self.prefix):
            # What killed ones left: whoever holds the lock is alone.
            for name in os.listdir(self.prefix):
                if name.startswith(_STAGING):
                    shutil.rmtree(os.path.join(self.prefix, name))
            self._folder = tempfile.mkdtemp(prefix=_STAGING, dir=self.prefix)

    def __exit__(self, *_):
        shutil.rmtree(self._folder, ignore_errors=True)
        self._end()

    def _end(self):
        if not self._published:
            for folder in reversed(self._made):
                with contextlib.suppress(OSError):  # Somebody else's file is in it.
                    os.rmdir(folder)
        os.close(self._lock)

    def _in_prefix(self, path):
        return os.path.join(self.prefix, path)

    def _place(self, path):
        self._units.add(_unit(path))
        place = os.path.join(self._folder, "new", path)
        _make_folders(os.path.dirname(place))
        return place

    def add(self, path, source):
        """Copies the file `source`."""
        with open(source, "rb"):  # An error of its own is one of the source.
            pass
        with _errors_name(self._in_prefix(path)):
            place = self._place(path)
            shutil.copyfile(source, place)
            os.chmod(place, 0o755 if is_loaded(path) else 0o644)

    def write(self, path, text):
        """Makes a file of the text."""
        with _errors_name(self._in_prefix(path)):
            place = self._place(path)
            with open(place, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(place, 0o644)

    def link(self, path, target):
        """Makes a symbolic link that says `target`."""
        with _errors_name(self._in_prefix(path)):
            os.symlink(target, self._place(path))

    def check(self):
        """Raises if something is in the way of one of the files, or they may not be moved."""
        device = os.stat(self._folder).st_dev
        mounts = _mounts()
        for unit in sorted(self._units.union(OWN_FOLDERS, OWN_FILES, DISCOVERY)):
            place = self._in_prefix(unit)
            there = os.path.lexists(place)
            if not there and unit not in self._units:
                continue
            folder = os.path.dirname(place)
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            if not os.path.isdir(folder):
                raise InstallError(f"{folder}: is in the way, it is not a folder")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise InstallError(f"{folder}: {os.strerror(errno.EACCES)}")
            if os.stat(folder).st_dev != device:
                raise InstallError(f"{folder}: is on another file system than {self.prefix}, "
                                   f"so that {unit} can't be moved there")
            if there:
                self._check_replaceable(unit, mounts)

    def _check_replaceable(self, unit, mounts):
        """Raises if what is at the place of a unit isn't what an installation has there."""
        place = self._in_prefix(unit)
        folder = stat.S_ISDIR(os.lstat(place).st_mode)
        if folder != (unit in OWN_FOLDERS):
            what = "a folder" if folder else "not a folder"
            raise InstallError(f"{place}: is in the way, it is {what}")
        # What is moved away is removed, and a mount would be emptied with it.
        place = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        for mount in mounts:
            if mount == place or mount.startswith(place + "/"):
                raise InstallError(f"{mount}: something is mounted there, "
                                   f"so that {unit} can't be replaced")

    def publish(self):
        """Renames all into place.

        If that fails, what was there is put back. What can't be is named; what others find is
        whole then too, or isn't there.
        """
        self.check()
        try:
            self._move_all()
            self._published = True
        except BaseException as e:
            lost = self._move_back()
            if lost:
                raise InstallError(f"{e}; {', '.join(lost)} could not be put back: "
                                   "install again") from e
            raise

    def _move_all(self):
        for unit in DISCOVERY:
            self._put_aside(unit)
        for unit in sorted(self._units - set(DISCOVERY)):
            self._put_aside(unit)
            self._put_in(unit)
        for unit in OWN_FOLDERS + OWN_FILES:
            if unit not in self._units:
                self._put_aside(unit)
        for unit in DISCOVERY:
            if unit in self._units:
                self._put_in(unit)

    def _put_aside(self, unit):
        place = self._in_prefix(unit)
        if os.path.lexists(place):
            old = os.path.join(self._folder, "old", unit)
            with _errors_name(place):
                _make_folders(os.path.dirname(old))
                self._move(unit, place, old)

    def _put_in(self, unit):
        place = self._in_prefix(unit)
        with _errors_name(place):
            self._made += _make_folders(os.path.dirname(place))
            self._move(unit, os.path.join(self._folder, "new", unit), place)

    def _move(self, unit, start, end):
        # Noted before: a signal may come between the two.
        self._moves.append((unit, start, end))
        os.rename(start, end)

    def _move_back(self):
        """Takes moves back, the newest first. Returns the units for which it could not."""
        lost = []
        for unit, start, end in reversed(self._moves):
            discovery = unit in DISCOVERY
            if lost and discovery:
                break
            try:
                if os.path.lexists(end):
                    os.rename(end, start)
            except OSError:
                lost.append(unit)
                if discovery:  # It may be found: then all that is new stays with it.
                    break
        return list(dict.fromkeys(lost))
