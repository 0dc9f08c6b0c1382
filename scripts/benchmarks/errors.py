"""What a benchmark says when it cannot measure."""


class BenchmarkError(Exception):
    """The benchmark cannot run here; the message says what is missing."""


class ProcessFailed(BenchmarkError):
    """A measured command ended with an error; what it said on stderr was shown as it came."""
