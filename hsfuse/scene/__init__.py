"""A pair opened for work. `fuse` and `assess` start here, so that what is assessed is what was fused."""

from hsfuse.scene.opening import open_scene
from hsfuse.scene.pair import ScenePair
from hsfuse.scene.settings import DEFAULT_MTF, SceneSettings

__all__ = ["DEFAULT_MTF", "ScenePair", "SceneSettings", "open_scene"]
