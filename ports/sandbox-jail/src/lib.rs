//! The jail backend: a zygote that forks interpreters into namespaces, with seccomp, landlock and cgroups.
