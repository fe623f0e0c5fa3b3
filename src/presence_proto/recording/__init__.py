"""Recording and replay of an endpoint's inputs and outputs, for bug reports.

- `recorder.py`: writes recordings;
- `replay.py`: replays recordings, and shows recordings as text;
- `format.py`: the format of a recording;
- `redaction.py`: hides secrets;
- `frames.py`: splits byte streams into frames.
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
