"""The node `depth`: image, depth and camera_info of each camera; points and /tf_static of all."""

from __future__ import annotations

import re
import sys

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster

import fsmde_edge as fe
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.rig import Rig
from fsmde_edge.sinks.points import CloudMaker, PointChoice
from fsmde_edge_ros import fields


class Publisher:
    """A sink that publishes what subscribers want."""

    def __init__(self, node: Node, stride: int) -> None:
        self._node, self._maker = node, CloudMaker(PointChoice(stride=stride))
        self._poses = StaticTransformBroadcaster(node)
        self._points = node.create_publisher(PointCloud2, "~/points", qos_profile_sensor_data)
        self._views: dict[str, tuple] = {}
        self._rig: Rig | None = None

    def write(self, frame_set: FrameSet, images: NDArray[np.uint8], depth_set: DepthSet) -> None:
        """Publish one set."""
        rig, stamps = depth_set.rig, fields.stamps_ns(frame_set)
        if rig is None:
            return
        if rig is not self._rig:
            self._poses.sendTransform([transform(each) for each in fields.transforms(rig, min(stamps))])
            self._rig = rig
        for view, (camera, valid) in enumerate(zip(rig.cameras, fields.usable(depth_set), strict=True)):
            seen, far, info = self._of(camera.name)
            seen.publish(image(fields.picture(camera, stamps[view], images[view])))
            far.publish(image(fields.depth(camera, stamps[view], depth_set.depth[view], valid=valid)))
            info.publish(camera_info(fields.camera_info(camera, stamps[view])))
        if self._points.get_subscription_count():
            cloud = self._maker.cloud(images, depth_set)
            self._points.publish(point_cloud(fields.points(cloud, min(stamps))))

    def close(self) -> None:
        """Nothing is kept."""

    def _of(self, camera: str) -> tuple:
        if camera not in self._views:
            name = re.sub(r"\W", "_", f"camera_{camera}")  # a topic's part must not begin with a digit
            self._views[camera] = tuple(
                self._node.create_publisher(kind, f"~/{name}/{what}", qos_profile_sensor_data)
                for kind, what in ((Image, "image"), (Image, "depth"), (CameraInfo, "camera_info"))
            )
        return self._views[camera]


def message_header(given: fields.Header) -> Header:
    """As a message."""
    made = Header(frame_id=given.frame_id)
    made.stamp.sec, made.stamp.nanosec = given.sec, given.nanosec
    return made


def image(given: fields.ImageFields) -> Image:
    """As a message."""
    made = Image(header=message_header(given.header), height=given.height, width=given.width)
    made.encoding, made.step, made.data = given.encoding, given.step, given.data
    return made


def camera_info(given: fields.CameraInfoFields) -> CameraInfo:
    """As a message."""
    made = CameraInfo(header=message_header(given.header), height=given.height, width=given.width)
    made.distortion_model, made.d = given.distortion_model, list(given.d)
    made.k, made.r, made.p = list(given.k), list(given.r), list(given.p)
    return made


def point_cloud(given: fields.PointFields) -> PointCloud2:
    """As a message."""
    made = PointCloud2(header=message_header(given.header), height=1, width=given.width, is_dense=True)
    made.fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in given.fields
    ]
    made.point_step, made.row_step = given.point_step, given.point_step * given.width
    made.data = given.data
    return made


def transform(given: fields.TransformFields) -> TransformStamped:
    """As a message."""
    made = TransformStamped(header=message_header(given.header), child_frame_id=given.child_frame_id)
    place, turn = made.transform.translation, made.transform.rotation
    place.x, place.y, place.z = given.translation
    turn.x, turn.y, turn.z, turn.w = given.rotation
    return made


def main() -> None:
    """Run until the source ends or ROS shuts down."""
    rclpy.init()
    node = Node("fsmde_edge")
    asked = {name: node.declare_parameter(name, "").value or None for name in ("source", "cameras", "rig")}
    bundle = node.declare_parameter("bundle", "bundle").value
    missing = node.declare_parameter("missing", "mask").value
    publisher = Publisher(node, node.declare_parameter("points_stride", 4).value)
    say = node.get_logger().warning
    try:
        for _ in fe.run(bundle, missing=missing, sinks=[publisher], say=say, **asked):
            if not rclpy.ok():
                break
    except fe.FsmdeError as error:
        node.get_logger().fatal(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
