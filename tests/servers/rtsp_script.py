"""An RTSP server for tests, run by the system's Python, which has GStreamer's bindings.

    python3 rtsp_script.py <port> [<user>:<password>]

Each line of stdin is a mount and an H.264 file that it sends from now on, again and again, without
encoding it. Each is answered by a line on stdout.
"""

# mypy: ignore-errors
# the bindings have no types, and are not in our environment

import os
import shlex
import sys
import threading
import time
import traceback

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

READ = (
    "filesrc name=file ! parsebin ! h264parse ! "
    "video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
)
SEND = (
    "( appsrc name=source is-live=true format=time block=true max-bytes=4000000 "
    "caps=video/x-h264,stream-format=byte-stream,alignment=au "
    "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


class Clip:
    """The coded pictures of a file, in the order of decoding, with their times in nanoseconds."""

    def __init__(self, path):
        pipeline = Gst.parse_launch(READ)
        pipeline.get_by_name("file").set_property("location", path)
        sink = pipeline.get_by_name("sink")
        pipeline.set_state(Gst.State.PLAYING)
        self.pictures = []
        while (sample := sink.emit("try-pull-sample", 10 * Gst.SECOND)) is not None:
            buffer = sample.get_buffer()
            pts = buffer.pts
            dts = pts if buffer.dts == Gst.CLOCK_TIME_NONE else buffer.dts
            self.pictures.append((pts, dts, buffer.extract_dup(0, buffer.get_size())))
        pipeline.set_state(Gst.State.NULL)
        if len(self.pictures) < 2:
            raise SystemExit(f"no H.264 pictures in {path}")
        first = min(dts for _, dts, _ in self.pictures)
        self.pictures = [(pts - first, dts - first, data) for pts, dts, data in self.pictures]
        count = len(self.pictures)
        self.length = self.pictures[-1][1] * count // (count - 1)


def give_up(failed):
    """A thread that fails ends the server."""
    traceback.print_exception(failed.exc_value)
    os._exit(1)


class Mount(GstRtspServer.RTSPMediaFactory):
    """Sends a clip, which may be another one from its next picture on."""

    def __init__(self, clip):
        super().__init__()
        self.clip = clip
        self.set_launch(SEND)
        self.set_shared(True)
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media):
        source = media.get_element().get_by_name("source")
        threading.Thread(target=self.send, args=(source,), daemon=True).start()

    def send(self, source):
        began, offset = time.monotonic_ns(), 0
        while True:
            clip = self.clip
            for pts, dts, data in clip.pictures:
                pause = began + offset + dts - time.monotonic_ns()
                if pause > 0:
                    time.sleep(pause / 1e9)
                if self.clip is not clip:
                    break
                buffer = Gst.Buffer.new_wrapped(data)
                buffer.pts, buffer.dts = offset + pts, offset + dts
                if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                    return
            if self.clip is clip:
                offset += clip.length
            else:
                offset = time.monotonic_ns() - began


def main():
    threading.excepthook = give_up
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    mounts = server.get_mount_points()
    if len(sys.argv) > 2:
        user, _, password = sys.argv[2].partition(":")
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
    known = {}

    def listen():
        for line in sys.stdin:
            name, path = shlex.split(line)
            clip = Clip(path)
            if name in known:
                known[name].clip = clip
            else:
                known[name] = mount = Mount(clip)
                if len(sys.argv) > 2:
                    permissions = GstRtspServer.RTSPPermissions()
                    permissions.add_permission_for_role("user", "media.factory.access", True)
                    permissions.add_permission_for_role("user", "media.factory.construct", True)
                    mount.set_permissions(permissions)
                mounts.add_factory(f"/{name}", mount)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        loop.quit()

    server.attach(None)
    loop = GLib.MainLoop()
    threading.Thread(target=listen, daemon=True).start()
    loop.run()


main()
