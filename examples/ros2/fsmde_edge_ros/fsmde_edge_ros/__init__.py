"""Depth of fsmde-edge as ROS 2 messages."""
