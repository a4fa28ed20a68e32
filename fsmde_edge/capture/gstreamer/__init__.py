"""Cameras behind GStreamer pipelines: one pipeline a camera, each ending in an appsink.

library    GStreamer through PyGObject, or what to install
names      which description is which camera's
pictures   caps and video metas → raw layouts; buffers mapped, and unmapped once nobody looks
pipeline   one pipeline: made, started, read, started again
loop       the thread that drives all of them
source     frame sets of them
"""
