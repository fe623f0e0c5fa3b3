"""Record what an endpoint does, and replay it: the way to report a bug.

`redaction.py` knows secrets and what stands for them, `http.py` where they stand in HTTP; `frames.py` cuts
streams into frames, `inbound.py` takes the secrets out of what comes in, `outputs.py` tells what goes out;
`values.py` is about JSON, `header.py` about the first line; `recorder.py` writes recordings, `replay.py`
plays them again, and `show.py` tells them in words.
"""

from presence_proto.recording.recorder import Recorder
from presence_proto.recording.replay import Difference, ReplayResult, replay
from presence_proto.recording.show import Narrator, show_recording

__all__ = ["Difference", "Narrator", "Recorder", "ReplayResult", "replay", "show_recording"]
