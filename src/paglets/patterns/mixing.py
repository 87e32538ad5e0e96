"""What all mixins for paglets have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from paglets.core.agent import Paglet


class PagletMixin:
    """Mixed in before `Paglet`, or a class that extends it.

    It is not one itself: a class that uses it so keeps the types that it gives to `Paglet`, those of its state for
    example.
    """

    @property
    def _paglet(self) -> Paglet[Any]:
        return cast("Paglet[Any]", self)
