//! A scratch directory with a store, a state directory and a layout, and creel called on them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use creel_integration::leaks::{Leaks, mounts};
use creel_integration::scratch::Scratch;
use creel_integration::{Cmd, Runtime, wait};
use serde_json::json;

use crate::layout::{BUSYBOX, Layout, busybox_tree};

pub struct Images {
    pub scratch: Scratch,
    pub layout: Layout,
    before: Vec<String>,
}

/// Why images cannot be tested here, if they cannot.
pub fn missing() -> Option<String> {
    if !Runtime::under_test().is_creel() {
        return Some("only creel has commands around images".to_owned());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("{BUSYBOX} is not installed"));
    }
    let companion = Runtime::under_test().path().with_file_name("creel-image");
    (!companion.exists()).then(|| format!("{} is not built", companion.display()))
}

/// Skips the test where images cannot be tested.
#[macro_export]
macro_rules! needs_images {
    () => {
        if let Some(why) = $crate::harness::missing() {
            creel_integration::skip!("{why}");
        }
    };
}

/// What a command may take. A pull ends with a syncfs(2), which waits for all that others have written to the file
/// system too: on a machine that just built something, gigabytes.
const DEADLINE: Duration = Duration::from_secs(300);

/// f_type of overlayfs (statfs(2)), which cannot be its own upper layer.
const OVERLAYFS: i64 = 0x794c_7630;

impl Images {
    /// With an image `a` of busybox, whose command says hello and exits with 3.
    pub fn new() -> Images {
        let scratch = Scratch::new();
        let store = scratch.dir("store");
        #[allow(clippy::unnecessary_cast, reason = "its width differs between architectures")]
        let kind = rustix::fs::statfs(&store).unwrap().f_type as i64;
        if kind == OVERLAYFS {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", &store, "tmpfs", flags, None).unwrap();
        }
        let layout = Layout::new(scratch.join("layout"));
        let layer = layout.layer(&busybox_tree(&scratch.join("tree")));
        let config = json!({"Cmd": ["sh", "-c", "echo hello; exit 3"], "Env": ["PATH=/bin", "A=image"]});
        layout.image("a", &[layer], &config);
        let before = mounts();
        Images { scratch, layout, before }
    }

    pub fn store(&self, name: &str) -> PathBuf {
        self.scratch.join("store").join(name)
    }

    /// Puts the store on a file system of its own, of this size.
    pub fn limit_store(&mut self, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", self.store(""), "tmpfs", flags, options.as_c_str()).unwrap();
        self.before = mounts();
    }

    pub fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// An image of the layout.
    pub fn oci(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.layout.path.display())
    }

    /// creel with a command, its own store and state, and nothing of this machine's configuration.
    pub fn creel<S: AsRef<str>>(&self, args: &[S]) -> Cmd {
        let mut words = vec!["--root".to_owned(), self.state().display().to_string()];
        words.push(args[0].as_ref().to_owned());
        words.extend(["--store".to_owned(), self.scratch.join("store").display().to_string()]);
        words.extend(args[1..].iter().map(|word| word.as_ref().to_owned()));
        self.plain().args(words)
    }

    /// The same for a command within a command, such as `image verify`.
    pub fn creel_nested<S: AsRef<str>>(&self, args: &[S]) -> Cmd {
        let (first, rest) = args.split_at(2);
        let words = [first[0].as_ref(), first[1].as_ref()];
        let store = self.scratch.join("store").display().to_string();
        let mut all = vec!["--root".to_owned(), self.state().display().to_string()];
        all.extend(words.map(str::to_owned));
        all.extend(["--store".to_owned(), store]);
        all.extend(rest.iter().map(|word| word.as_ref().to_owned()));
        self.plain().args(all)
    }

    /// The same for the runtime's own commands.
    pub fn runtime<S: AsRef<str>>(&self, args: &[S]) -> Cmd {
        self.plain()
            .args([self.state().as_os_str()].map(|root| ["--root".as_ref(), root]).concat())
            .args(args.iter().map(AsRef::as_ref))
    }

    fn plain(&self) -> Cmd {
        let auth = self.scratch.join("auth.json");
        if !auth.exists() {
            std::fs::write(&auth, "{}").unwrap();
        }
        Cmd::new(Runtime::under_test().path())
            .deadline(DEADLINE)
            .env("HOME", self.scratch.path())
            .env("REGISTRY_AUTH_FILE", &auth)
            .env("NO_PROXY", "127.0.0.1")
    }

    /// `pull-and-run` of an image under the scratch directory's name.
    pub fn run(&self, flags: &[&str], image: &str, command: &[&str]) -> Cmd {
        let words = ["pull-and-run", "--name", self.scratch.name()];
        self.creel(&[&words, flags, &[image], command].concat())
    }

    /// What is in a directory of the store.
    pub fn stored(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.store(directory)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Asserts that of the containers nothing is left.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.stored("containers"), Vec::<String>::new());
        assert_eq!(self.stored("tmp"), Vec::<String>::new());
        let end = Instant::now() + wait::DEADLINE;
        loop {
            let leaks = Leaks::of(self.scratch.name(), &self.state(), &self.before);
            if leaks.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left of the container: {leaks:?}");
            std::thread::yield_now();
        }
    }
}
