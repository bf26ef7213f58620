"""Sentences for what the operating system refuses: what, where, and how to mend it."""

from __future__ import annotations

import errno
import os

_DISK = "free space there, or name a folder on another disk"
# errno → what happened, and how to mend it.
_SENTENCES = {
    errno.ENOSPC: ("the disk is full", _DISK),
    errno.EDQUOT: ("the quota of the disk is used up", _DISK),
    errno.EFBIG: (
        "the file would be larger than this process may write",
        "raise the limit (ulimit -f), or write elsewhere",
    ),
    errno.EROFS: ("the file system is read-only", "name a folder that can be written"),
    errno.EACCES: ("permission is denied", "change the permissions, or name a folder of your own"),
    errno.EPERM: ("permission is denied", "change the permissions, or name a folder of your own"),
    errno.ENOENT: ("there is no such file or folder", "check the path, and create the folder that it lies in"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("this is a folder, but a file is expected", "name a file in it"),
    errno.EEXIST: ("something of this name is already there", "name another path, or move it away"),
    errno.ENOTEMPTY: ("the folder is not empty", "name another path, or move it away"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("symbolic links lead in a circle", "check the links of the path"),
    errno.EIO: ("the disk does not answer", "check the disk; the kernel's log says more"),
    errno.ESTALE: ("the network file system has lost the file", "mount it again"),
    errno.EMFILE: ("this process has too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("the system has too many open files", "end other programs"),
    errno.ENOMEM: ("there is not enough memory", "end other programs, or use a machine with more memory"),
    errno.EXDEV: ("the file cannot be moved to another disk", "name a folder on the same disk"),
    errno.EADDRINUSE: ("the address is in use", "end the other program, or choose another port"),
}


def sentence(error: OSError) -> str:
    """Says what the operating system refused, on which file, and how to mend it.

    Args:
        error: The refusal.

    Returns:
        What is wrong, then `where:` and `fix:` on lines of their own, where they are known.
    """
    own = error.strerror or str(error) or type(error).__name__
    what, fix = _SENTENCES.get(error.errno or 0, (own, ""))
    if error.errno and own != os.strerror(error.errno):  # the program's own words, such as those of tempfile
        what = own
    named = [
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
    ]
    lines = [what]
    if named:
        lines.append(f"  where: {' → '.join(named)}")
    if fix:
        lines.append(f"  fix:   {fix}")
    return "\n".join(lines)
