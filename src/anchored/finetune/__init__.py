"""Fine-tuning: what trains, what anchors, and the loop.

from anchored.finetune import Anchor        # Anchor(model, fisher, strength)
"""

from anchored.finetune.anchor import Anchor

__all__ = ["Anchor"]
