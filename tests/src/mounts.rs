//! Small file systems for faults: a tmpfs that runs full, an ext4 image that loses power. They need root and mount(8).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A mounted file system, unmounted when dropped.
pub struct Mounted {
    folder: PathBuf,
    image: Option<PathBuf>,
}

impl Mounted {
    /// A tmpfs of `bytes` on `folder` (created); `None` where mounting is not allowed.
    pub fn tmpfs(folder: &Path, bytes: u64) -> Option<Mounted> {
        std::fs::create_dir_all(folder).expect("folder to mount on");
        let size = format!("size={bytes}");
        run("mount", &["-t", "tmpfs", "-o", &size, "logferry-test", &folder.display().to_string()])
            .then(|| Mounted { folder: folder.to_owned(), image: None })
    }

    /// Changes the size of a tmpfs.
    pub fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        assert!(
            run("mount", &["-o", &size, &self.folder.display().to_string()]),
            "remount {}",
            self.folder.display()
        );
    }

    /// Makes it read-only, or writable again. While a file is open for writing it cannot be made read-only.
    pub fn set_read_only(&self, is_read_only: bool) {
        let how = if is_read_only { "remount,ro" } else { "remount,rw" };
        assert!(
            run("mount", &["-o", how, &self.folder.display().to_string()]),
            "{how} {}",
            self.folder.display()
        );
    }

    /// A fresh ext4 of 64 MiB in `image`, loop-mounted on `folder`; `None` where that is not allowed.
    pub fn ext4(image: &Path, folder: &Path) -> Option<Mounted> {
        Mounted::ext4_with(image, folder, &[])
    }

    /// The same, made with more arguments of mkfs.ext4(8).
    pub fn ext4_with(image: &Path, folder: &Path, arguments: &[&str]) -> Option<Mounted> {
        std::fs::create_dir_all(folder).expect("folder to mount on");
        let file = std::fs::File::create(image).expect("image");
        file.set_len(64 << 20).expect("image");
        let image_path = image.display().to_string();
        if !run("mkfs.ext4", &[&["-q", "-F"], arguments, &[image_path.as_str()]].concat()) {
            return None;
        }
        let mounted = Mounted { folder: folder.to_owned(), image: Some(image.to_owned()) };
        mounted.mount_image().then_some(mounted)
    }

    fn mount_image(&self) -> bool {
        let image = self.image.as_ref().expect("an ext4 image").display().to_string();
        run("mount", &["-o", "loop", &image, &self.folder.display().to_string()])
    }

    /// The kernel meets an error in the file system, made with `-e remount-ro`, and makes it read-only, whatever is open there. It is writable
    /// again after [`Mounted::power_on`].
    pub fn meet_error(&self) {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let folder = self.folder.display().to_string();
        let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let device = words.find(|words| words.get(1) == Some(&folder.as_str())).expect("a mounted image")[0];
        let name = device.rsplit('/').next().unwrap_or(device);
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1")
            .expect("an error of the file system");
    }

    /// Cuts the power: nothing that is not on the disk gets there any more (FS_IOC_SHUTDOWN without a log flush).
    pub fn cut_power(&self) {
        assert!(
            run("xfs_io", &["-x", "-c", "shutdown", &self.folder.display().to_string()]),
            "xfs_io shutdown on {}",
            self.folder.display()
        );
    }

    /// Mounts it again after [`Mounted::cut_power`] or [`Mounted::meet_error`]; the programs on it must be gone. The journal is replayed.
    pub fn power_on(&self) {
        assert!(run("umount", &[&self.folder.display().to_string()]), "umount {}", self.folder.display());
        assert!(self.mount_image(), "mount {} again", self.folder.display());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let folder = self.folder.display().to_string();
        if !run("umount", &[&folder]) {
            run("umount", &["-l", &folder]);
        }
    }
}
