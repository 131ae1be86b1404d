"""For `make lab`: a notebook opens saved.

As soon as its kernel runs, JupyterLab writes into a notebook what that kernel is called and which Python it has, and
marks the notebook as changed. nbdev_clean takes both out again, since they differ from one machine to the next. So
they are added here when a notebook is read; its file stays as it is.
"""

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

KERNEL = "python3"


def describe_kernel(metadata):
    "Write into a notebook's metadata what JupyterLab would write when the kernel of this environment has started."
    if metadata.get("kernelspec", {}).get("name") != KERNEL:
        return
    spec = KernelSpecManager().get_kernel_spec(KERNEL)
    metadata["kernelspec"] = {"display_name": spec.display_name, "language": spec.language, "name": KERNEL}
    metadata["language_info"] = dict(IPythonKernel.language_info)


class DescribedNotebooks(AsyncLargeFileManager):
    "Jupyter's own files, with the kernel described in each notebook."

    async def get(self, path, content=True, type=None, format=None, require_hash=False):
        model = await super().get(path, content, type, format, require_hash)
        if content and model["type"] == "notebook":
            describe_kernel(model["content"]["metadata"])
        return model


c.ServerApp.contents_manager_class = DescribedNotebooks  # noqa: F821, Jupyter gives `c` to its configuration
c.LabApp.news_url = None  # noqa: F821
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"  # noqa: F821
