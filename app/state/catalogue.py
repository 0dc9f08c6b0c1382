"""The items that can be recommended: what the live artifact knows, and what was changed since."""

from app.state.items.masks import MaskCache
from app.state.items.view import CatalogueItem, CatalogueModel, CatalogueView

__all__ = ["Catalogue", "CatalogueItem", "CatalogueView"]


class Catalogue:
    """One per worker."""

    def __init__(self) -> None:
        self._masks = MaskCache()
        self._view = CatalogueView.of_model(None, self._masks)

    def view(self, model: CatalogueModel | None) -> CatalogueView:
        """The catalogue now, in the item indices of this model; None: there are only items that were added live.

        Take it in the same moment as the model, once per request.
        """
        if self._view.model is not model:
            self._view = CatalogueView.of_model(model, self._masks)
        return self._view
