"""A hook that kills its own process at a named point; tests put it into a project's settings.

``KILL_AT`` is ``KIND:NAME@ITERATION``: ``node:fine_tune@2`` before a node, ``save:scores@1`` in
the middle of a write (of an adapter: of its copy), ``upload:adapter@2`` after the first object of
a save to S3, ``commit:adapter@2`` after a save and before its commit.
"""

import os
import shutil
import signal
from pathlib import Path

from fsspec.implementations.local import LocalFileOpener
from kedro.framework.hooks import hook_impl


class KillPoint:
    def __init__(self):
        point, self.iteration = os.environ["KILL_AT"].split("@")
        self.kind, self.name = point.split(":")
        self.now = None

    def reached(self, kind, name):
        return (self.kind, self.name, self.iteration) == (kind, name, str(self.now))

    @hook_impl
    def before_iteration(self, iteration):
        self.now = iteration

    @hook_impl
    def before_node_run(self, node):
        if self.reached("node", node.short_name):
            kill()

    @hook_impl(trylast=True)
    def before_dataset_saved(self, dataset_name):
        if self.reached("save", dataset_name):
            LocalFileOpener.write = write_half_and_die
            shutil.copytree = copy_one_file_and_die

        if self.reached("upload", dataset_name):
            from s3fs import S3FileSystem

            S3FileSystem._call_s3 = put_one_object_and_die(S3FileSystem._call_s3)

    @hook_impl(tryfirst=True)
    def after_dataset_saved(self, dataset_name):
        if self.reached("commit", dataset_name):
            kill()


def write_half_and_die(opener, data):
    opener.f.write(data[: len(data) // 2])
    opener.f.flush()
    kill()


def copy_one_file_and_die(source, target):
    os.makedirs(target)
    shutil.copy(next(Path(source).glob("*.safetensors")), target)
    kill()


def put_one_object_and_die(call_s3):
    async def call(*arguments, **options):
        result = await call_s3(*arguments, **options)
        if "put_object" in arguments:
            kill()
        return result

    return call


def kill():
    os.kill(os.getpid(), signal.SIGKILL)
