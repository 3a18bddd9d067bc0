"""mmgn's nodes of MMEngine's registry tree, each below mmdet's: the types of a ``_base_ = 'mmgn::...'`` are found here.

MMEngine looks for a base's types in the scope of the package that it comes from, and imports this module for it.
"""

from typing import Any

from mmdet import registry
from mmengine.registry import DefaultScope, Registry


class Node(Registry):
    """A registry that has what the framework has that a config is for: mmdet's or, by its default scope, another's."""

    def get(self, key: str) -> Any:
        """Return the class of that name, None if there is none."""
        # The innermost is the last: mmgn, while a part of ours is built, over the config's own default scope.
        scopes = [scope.scope_name for scope in DefaultScope._instance_dict.values()]
        framework = next((scope for scope in reversed(scopes) if scope != self.scope), "mmdet")
        with self.switch_scope_and_registry(framework) as node:
            return (node is not self and node.get(key)) or super().get(key)


#: By mmdet's name. A lookup imports what mmdet's own would.
NODES = {
    name: Node(node.name, scope="mmgn", parent=node, locations=node._locations)
    for name, node in vars(registry).items()
    if isinstance(node, Registry) and node.scope == "mmdet"
}
