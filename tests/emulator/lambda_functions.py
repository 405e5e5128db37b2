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
from ministack.services.cloudformation import provisioners

# AWS's emulator of the runtime's interface, from the SAM CLI's wheel, which mounts it like that too.
RIE_IN_WHEEL = "samcli/local/rapid/aws-lambda-rie-x86_64"
RIE = "/var/rapid/aws-lambda-rie"
TRUSTED = "/var/trusted.pem"  # in place of the public authorities, who sign no issuer on this machine
ENTRYPOINT = [RIE, "--log-level", "error", "/var/runtime/bootstrap"]
_container = threading.local()  # what the container that this thread starts has beyond ministack's own
_folders: dict[tuple[str, ...], Path] = {}
_folders_lock = threading.Lock()


def extend(trusted: Path | None) -> None:
    """Add all of this to the running ministack; `trusted` are certificates for functions, once that file is there."""
    lambda_svc._docker_image_for_runtime = find_image
    lambda_svc._spawn_lambda_container = _spawn_with(lambda_svc._spawn_lambda_container, trusted)
    lambda_svc._parse_docker_flags = _add_options_to(lambda_svc._parse_docker_flags)
    function = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    function["create"] = _keep_key_of(function["create"], properties=1)
    function["update"] = _keep_key_of(function["update"], properties=2)
    lambda_svc._warm_pool_key = _name_pool_with(lambda_svc._warm_pool_key)
    lambda_svc._pool_kill_function = retire_environments


def find_image(runtime: str) -> str:
    """Name the image under which the SAM CLI has it on this machine."""
    return f"public.ecr.aws/lambda/python:{runtime.removeprefix('python')}-x86_64"


def find_rie() -> Path:
    """Find AWS's emulator of the runtime's interface in `.venv-sam`, beside this environment."""
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(Path(".venv-sam").resolve())}))
    return packages / RIE_IN_WHEEL


def _spawn_with(spawn: Any, trusted: Path | None) -> Any:  # noqa: ANN401 - ministack has no types
    def spawn_container(config: dict[str, Any], code_zip: bytes, **more: Any) -> Any:  # noqa: ANN401
        if config.get("PackageType") == "Image":
            return spawn(config, code_zip, **more)
        folder = merge_layers(config.get("Layers") or [])
        _container.options = {
            "entrypoint": ENTRYPOINT,
            "mem_limit": f"{config['MemorySize']}m",
            "mounts": [mount("/opt", folder), mount(RIE, find_rie())],
        }
        if trusted is not None and trusted.exists():
            _container.options["mounts"].append(mount(TRUSTED, trusted))
            _container.options["environment"] = {"SSL_CERT_FILE": TRUSTED}
        try:
            return spawn({**config, "Layers": []}, code_zip, **more)
        finally:
            _container.options = {}

    return spawn_container


def _keep_key_of(make: Any, properties: int) -> Any:  # noqa: ANN401 - ministack has no types
    """Keep the key of a function's variables, which ministack's CloudFormation passes over.

    `properties` is the place of the function's properties among the arguments.
    """

    def make_function(*given: Any) -> Any:  # noqa: ANN401 - ministack's own
        made = make(*given)
        lambda_svc._functions[made[0]]["config"]["KMSKeyArn"] = given[properties].get("KmsKeyArn") or ""
        return made

    return make_function


# ministack knows environments by function and code, so that one of a version would run for another version with other
# layers or variables; and an update kills all of the function, with the requests in them. Lambda has environments of
# each version, which an update leaves alone, and lets requests end.


def _name_pool_with(name_pool: Any) -> Any:  # noqa: ANN401 - ministack has no types
    """Name the environments of one state of a function: a version, or what $LATEST was between two updates."""
    return lambda name, config: f"{name_pool(name, config)}:{config.get('Version')}:{config.get('RevisionId')}"


def retire_environments(account: str, function: str) -> None:
    """End idle environments of $LATEST, which no request reaches any more, or all of a function that is gone.

    One that is at work is idle and forgotten some minutes later.
    """
    gone = function not in lambda_svc._functions
    retired = []
    with lambda_svc._warm_pool_lock:
        for key, entries in lambda_svc._warm_pool.items():
            _, _, name, *_, version, _ = key.split(":")
            if name == function and (gone or version == "$LATEST"):
                retired += [entry for entry in entries if gone or not entry["in_use"]]
                entries[:] = [entry for entry in entries if entry not in retired]
    # Apart, since stopping a container takes seconds, for which all of ministack would wait.
    threading.Thread(target=_end, args=(retired,), daemon=True).start()


def _end(entries: list[Any]) -> None:
    for entry in entries:
        lambda_svc._kill_pool_entry(entry)


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
