"""From the name of a data set to its source."""

from workers.data.arrays import load_digits, load_torchvision
from workers.data.image_folder import open_image_folder
from workers.data.source import Source
from workers.errors import DataError
from workers.settings import DataSettings


def open_source(settings: DataSettings) -> Source:
    """Open what the settings name.

    Raises:
        DataError: It is not there, or not laid out as expected.
    """
    if settings.name == "digits":
        return load_digits(settings.image_size)
    if settings.path is None:
        raise DataError(
            f"Data set {settings.name!r} needs data.path, the folder that holds it on every node; "
            "only 'digits' comes with the installation."
        )
    if settings.name == "image_folder":
        return open_image_folder(settings.path, settings.image_size)
    return load_torchvision(
        settings.name, settings.path, settings.image_size, download=settings.download
    )
