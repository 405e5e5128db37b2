"""Lambda: its own Runtime Interface Emulator in the image that is there, layers mounted, memory limited.

ministack copies the layers into each container, some seconds of a processor for 160 MB. Lambda mounts them read-only,
and so does this, from one folder for all containers.
"""

import shutil
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc

# AWS's emulator of the runtime's interface, from the SAM CLI's wheel, which mounts it like that too.
RIE_IN_WHEEL = "samcli/local/rapid/aws-lambda-rie-x86_64"
RIE = "/var/rapid/aws-lambda-rie"
ENTRYPOINT = [RIE, "--log-level", "error", "/var/runtime/bootstrap"]
_container = threading.local()  # what the container that this thread starts has beyond ministack's own
_folders: dict[tuple[str, ...], Path] = {}
_folders_lock = threading.Lock()


def extend() -> None:
    """Add all of this to the running ministack."""
    lambda_svc._docker_image_for_runtime = find_image
    lambda_svc._spawn_lambda_container = _spawn_with(lambda_svc._spawn_lambda_container)
    lambda_svc._parse_docker_flags = _add_options_to(lambda_svc._parse_docker_flags)


def find_image(runtime: str) -> str:
    """Name the image under which the SAM CLI has it on this machine."""
    return f"public.ecr.aws/lambda/python:{runtime.removeprefix('python')}-x86_64"


def find_rie() -> Path:
    """Find AWS's emulator of the runtime's interface in `.venv-sam`, beside this environment."""
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(Path(".venv-sam").resolve())}))
    return packages / RIE_IN_WHEEL


def _spawn_with(spawn: Any) -> Any:  # noqa: ANN401 - ministack has no types
    def spawn_container(config: dict[str, Any], code_zip: bytes, **more: Any) -> Any:  # noqa: ANN401
        if config.get("PackageType") == "Image":
            return spawn(config, code_zip, **more)
        folder = merge_layers(config.get("Layers") or [])
        _container.options = {
            "entrypoint": ENTRYPOINT,
            "mem_limit": f"{config['MemorySize']}m",
            "mounts": [mount("/opt", folder), mount(RIE, find_rie())],
        }
        try:
            return spawn({**config, "Layers": []}, code_zip, **more)
        finally:
            _container.options = {}

    return spawn_container


def mount(target: str, source: Path) -> Any:  # noqa: ANN401 - docker's own
    """Mount a file or folder of this machine read-only."""
    return lambda_svc.docker_lib.types.Mount(target, str(source), type="bind", read_only=True)


def merge_layers(layers: list[Any]) -> Path:
    """Merge layers into one folder, later ones over earlier ones; once for each list of them."""
    blobs = [blob for layer in layers if (blob := lambda_svc._resolve_layer_zip(layer))]
    extracted = tuple(lambda_svc._docker_extracted_dir(blob, "layer") for blob in blobs)
    with _folders_lock:
        if extracted not in _folders:
            folder = Path(tempfile.mkdtemp(prefix="layers-"))
            for layer in extracted:
                shutil.copytree(layer, folder, dirs_exist_ok=True, symlinks=True)
            folder.chmod(0o755)
            _folders[extracted] = folder
        return _folders[extracted]


def _add_options_to(parse: Any) -> Any:  # noqa: ANN401 - ministack has no types
    return lambda flags: {**parse(flags), **getattr(_container, "options", {})}
