"""Errors of the operating system and of TensorFlow as one sentence: what is wrong with which file, and what helps.

No TensorFlow: its errors are known by the name of their class.
"""

import errno
import re

# {error number of the operating system, or name of TensorFlow's error: what helps}
NO_SPACE = "Free some space there, then start the same command again."
NO_PERMISSION = "Change the permissions of that file or folder, or name another one."
REMEDIES: dict[int | str, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, "PermissionDeniedError"), NO_PERMISSION),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "A file stands where a folder is needed: name another folder."),
    errno.EMFILE: "Raise the limit of open files (ulimit -n), then start the same command again.",
}
OUT_OF_MEMORY = re.compile(r"\bOOM\b|out of memory|OUT_OF_MEMORY|failed to allocate", re.IGNORECASE)
LESS_MEMORY = (
    "Close other programs that use it, or let a step take less: double --accumulation (the batch stays the same), "
    "halve --teacher_batch_size, or take --precision=mixed_bfloat16."
)


def sentence_of(error: Exception) -> str | None:
    """What to tell a user whose input, machine or devices have caused this error; None for a fault of the program."""
    if any(kind.__name__ == "OpError" and kind.__module__.startswith("tensorflow.") for kind in type(error).__mro__):
        return _tensorflow_sentence(error)
    if isinstance(error, MemoryError):
        return f"the memory of this machine is not enough{f' ({error})' if str(error) else ''}. {LESS_MEMORY}"
    if isinstance(error, OSError):
        files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        text = f"{files}: {error.strerror}." if files and error.strerror else str(error)
        cause = error if error.errno else error.__cause__
        remedy = REMEDIES.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""
        return f"{text} {remedy}".strip()
    return str(error) if isinstance(error, (ValueError, FloatingPointError)) else None


def _tensorflow_sentence(error: Exception) -> str:
    """The line of TensorFlow's message that says what is wrong, and what helps."""
    message, kind = str(getattr(error, "message", "") or error), type(error).__name__
    # Around that line are those on nodes of the graph, and on the lines of Python that have made them.
    around = ("Graph execution error", "Detected at node", "<stack traces", "File ", "[[", "Hint:")
    lines = [line for line in map(str.strip, message.splitlines()) if line and not line.startswith(around)]
    memory = next((line for line in lines if OUT_OF_MEMORY.search(line)), "")
    if memory:
        return f"the memory of the device is not enough ({memory}). {LESS_MEMORY}"
    reason = lines[0] if lines else kind
    if "No space left" in reason:
        return f"{reason}. {NO_SPACE}"
    return (
        f"{reason.rstrip('.')}. {REMEDIES.get(kind, f'TensorFlow calls this {kind}; --traceback shows where it was.')}"
    )
