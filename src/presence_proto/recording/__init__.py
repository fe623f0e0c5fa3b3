"""Record what an endpoint does, and replay it: the way to report a bug.

`redaction.py` hides secrets, `frames.py` cuts streams into frames, `format.py` is the text of a
recording. `recorder.py` writes recordings, `replay.py` plays them again and shows them in words.
"""

from presence_proto.errors import RecordingError
from presence_proto.recording.recorder import Recorder
from presence_proto.recording.replay import Difference, Narrator, ReplayResult, replay, show_recording

__all__ = [
    "Difference",
    "Narrator",
    "Recorder",
    "RecordingError",
    "ReplayResult",
    "replay",
    "show_recording",
]
