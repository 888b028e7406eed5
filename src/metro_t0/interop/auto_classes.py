"""transformers' Auto classes know METRO-T0 once the package is imported, with no cost before they are used.

>>> import metro_t0
>>> from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
>>> AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

``import metro_t0`` must not load torch, and transformers offers no list of packages to ask. So the import of
transformers' three auto modules is watched, and the classes are registered as soon as one of them is there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto."
_WATCHED = ("transformers", "metro_t0")


def register_auto_classes() -> None:
    """Register configuration, model and tokenizer with the Auto classes that are loaded, and later with the others."""
    _Registration().advance()


class _Registration:
    """A finder on ``sys.meta_path`` that finds nothing of its own: it only marks when an import has ended.

    A class is registered when no module of the two packages is half loaded in this thread, because transformers'
    own modules import its auto modules midway, and ours import both.
    """

    def __init__(self) -> None:
        self._pending = {
            "configuration_auto": _register_configuration,
            "modeling_auto": _register_model,
            "tokenization_auto": _register_tokenizer,
        }
        self._loading = threading.local()
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _WATCHED:
            return None
        finders = [finder.find_spec for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (find(name, path, target) for find in finders)), None)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Any) -> None:
        """Have the loader, which is this one module's own, say when the module is whole."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            depth = getattr(self._loading, "depth", 0)
            self._loading.depth = depth + 1
            try:
                execute(module)
            finally:
                self._loading.depth = depth
            if depth == 0:
                self.advance()

        loader.exec_module = exec_module

    def advance(self) -> None:
        """Register what can be; leave ``sys.meta_path`` when all is done."""
        for module in [name for name in self._pending if _AUTO + name in sys.modules]:
            # Taken out first: registering imports modules whose end comes back here.
            if register := self._pending.pop(module, None):
                register()
        if not self._pending and self in sys.meta_path:
            sys.meta_path.remove(self)


def _register_configuration() -> None:
    from transformers import AutoConfig

    from metro_t0.modeling.configuration import MetroT0Config

    AutoConfig.register(MetroT0Config.model_type, MetroT0Config, exist_ok=True)


def _register_model() -> None:
    from transformers import AutoModelForSeq2SeqLM

    from metro_t0.modeling.configuration import MetroT0Config
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration

    AutoModelForSeq2SeqLM.register(MetroT0Config, MetroT0ForConditionalGeneration, exist_ok=True)


def _register_tokenizer() -> None:
    from transformers import AutoTokenizer

    from metro_t0.modeling.configuration import MetroT0Config
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    AutoTokenizer.register(MetroT0Config, slow_tokenizer_class=MetroT0Tokenizer, exist_ok=True)
