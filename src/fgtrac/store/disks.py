"""Which file system a folder lies on, as Linux tells: the mount whose path is the longest that leads there."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK = re.compile(
    r"nfs\d*|cifs|smb\d*|smbfs|afs|9p|ceph|lustre|gpfs|beegfs|glusterfs|orangefs|pvfs2|ocfs2|gfs2|davfs|ncpfs"
    r"|fuse\.(?:sshfs|glusterfs|s3fs|gcsfuse|rclone|juicefs|ceph|mount-s3|davfs2?|goofys|blobfuse2?)"
)
IN_MEMORY = ("tmpfs", "ramfs")
_MOUNTS = Path("/proc/self/mountinfo")


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system, as `ext4` or `nfs4`; None where it cannot be told."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    path, longest, found = str(folder.resolve()), "", None
    for line in lines:  # proc_pid_mountinfo(5): the mount point is the fifth field, the type stands behind " - "
        front, _, back = line.partition(" - ")
        fields, kinds = front.split(), back.split()
        if len(fields) < 5 or not kinds:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):  # of two on one point the later one is seen
            longest, found = point, kinds[0]
    return found


def is_network(kind: str) -> bool:
    """Whether a file system of this type lies on another machine."""
    return NETWORK.fullmatch(kind) is not None
