"""Files in object stores and on the hub: paths that are read, and written, as those of a disk."""

from lateen.objects.path import ObjectPath, is_object, is_remote, mapped, matching, to_path

__all__ = ["ObjectPath", "is_object", "is_remote", "mapped", "matching", "to_path"]
