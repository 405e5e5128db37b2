"""Read and split the data set that a recipe names: the only module that imports every reader."""

from functions.train.data.builtin import BUILTIN_DATASETS
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataRoot
from functions.train.data.split import Splits, split_dataset
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions, UserDataOptions


def load_dataset(options: BuiltinDataOptions | UserDataOptions, data_root: DataRoot | None = None) -> Dataset:
    """Load the whole data set of a recipe, with paths relative to `data_root`; a text is refused."""
    if isinstance(options, BuiltinDataOptions):
        if options.text:
            raise InvalidInputError(
                f"folds must be null for the text {options.name!r}: its tokenizer would know every fold."
            )
        return BUILTIN_DATASETS[options.name]()
    from functions.train.data import readers  # it brings pyarrow and Pillow, which the built-in sets do without

    return readers.read_dataset(options, data_root or DataRoot())


def load_splits(options: BuiltinDataOptions | UserDataOptions, data_root: DataRoot | None = None) -> Splits:
    """Load and split the data set of a recipe, a text by its documents; what does not fit in memory is streamed.

    Tables are streamed by shards, images by files, which are split and drawn as if they were in memory.
    """
    if isinstance(options, BuiltinDataOptions) and options.text:
        from functions.train.data import text_windows  # it brings tokenizers

        return text_windows.load_text_splits(options)
    if isinstance(options, BuiltinDataOptions) or not options.streaming or options.file_format == "images":
        return split_dataset(load_dataset(options, data_root), options)
    from functions.train.data import stream_scan  # it brings what `readers` brings

    return stream_scan.scan_splits(options, data_root or DataRoot())
