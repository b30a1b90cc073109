"""What really goes wrong: processes that stop and die, disks that fill, files that break, networks that fall silent."""
