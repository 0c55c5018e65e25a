"""The system calls that a sandboxed program may not make, as a kernel filter."""

from __future__ import annotations

import errno
import struct
from functools import cache

from lalp.errors import InputError
from lalp.files import read_data

SYSTEM_CALLS = read_data("evaluation/system_calls.yaml")
"""Numbers of the refused system calls, by name, on x86_64 and aarch64."""

# Column of the call numbers, and the kernel's name for the machine (AUDIT_ARCH).
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE_THREAD, _CLONE_NEW_NAMESPACE = 0x10000, 0x7E02_0000
# Instructions of classic BPF, and a filter's possible answers.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


@cache
def seccomp_filter(machine: str) -> bytes:
    """A classic BPF program that refuses some system calls, and every new process."""
    if machine not in _ARCHITECTURES:
        known = f"its system call filter knows {' and '.join(_ARCHITECTURES)} only, not {machine}"
        raise InputError(f"running generated programs needs a bubblewrap sandbox, and {known}")
    column, architecture = _ARCHITECTURES[machine]
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(_IF_AT_LEAST, 0, 1, 0x4000_0000), (_RETURN, 0, 0, _KILL)]  # the x32 calls
    refusals = {numbers[column]: errno.EPERM for numbers in SYSTEM_CALLS["refused"].values()}
    # The flags of clone3 cannot be read here; libc falls back to clone.
    refusals[SYSTEM_CALLS["clone3"][column]] = errno.ENOSYS
    if machine == "x86_64":
        refusals |= dict.fromkeys(SYSTEM_CALLS["x86_old"].values(), errno.EPERM)
        refusals |= dict.fromkeys(SYSTEM_CALLS["x86_forks"].values(), errno.EAGAIN)
    for number, error in refusals.items():
        code += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | error)]
    code += [(_IF_EQUAL, 1, 0, SYSTEM_CALLS["clone"][column]), (_RETURN, 0, 0, _ALLOW)]
    code += [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_IF_ANY_BIT, 0, 1, _CLONE_NEW_NAMESPACE)]
    code += [(_RETURN, 0, 0, _FAIL | errno.EPERM)]
    code += [(_IF_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _FAIL | errno.EAGAIN)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
