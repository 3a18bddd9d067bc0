"""mmgn's nodes of MMEngine's registry tree, each below mmdet's: the types of a ``_base_ = 'mmgn::...'`` are found here.

MMEngine looks for a base's types in the scope of the package that it comes from, and imports this module for it.
"""

from mmdet import registry
from mmengine.registry import Registry

#: By mmdet's name. A lookup imports what mmdet's own would.
NODES = {
    name: Registry(node.name, scope="mmgn", parent=node, locations=node._locations)
    for name, node in vars(registry).items()
    if isinstance(node, Registry) and node.scope == "mmdet"
}
