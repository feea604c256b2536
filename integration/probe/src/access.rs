//! Whether a path can be read and written: the masked and readonly path tests.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::calls::errno_of;
use crate::files::entry;

/// `entry` of stat(2), `read` (an errno name, or how many bytes or names were seen, at most 4096),
/// `write` ("ok" or an errno name; directories are tried with a new file).
pub fn access(path: &str) -> Value {
    let path = Path::new(path);
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return json!({ "stat": errno_of(&error) }),
    };
    let (read, write) = if meta.is_dir() {
        (read_dir(path), write_dir(path))
    } else if meta.file_type().is_fifo() {
        // Opening a fifo waits for its other end.
        (Value::Null, Value::Null)
    } else {
        (read_file(path), write_file(path))
    };
    json!({ "stat": entry(path, &meta), "read": read, "write": write })
}

fn read_dir(path: &Path) -> Value {
    match fs::read_dir(path) {
        Ok(names) => json!(names.count()),
        Err(error) => json!(errno_of(&error)),
    }
}

fn write_dir(path: &Path) -> Value {
    let name = path.join(".creel-probe");
    match OpenOptions::new().write(true).create_new(true).open(&name).and_then(|_| fs::remove_file(&name)) {
        Ok(()) => json!("ok"),
        Err(error) => json!(errno_of(&error)),
    }
}

fn read_file(path: &Path) -> Value {
    let mut some = [0; 4096];
    match File::open(path).and_then(|mut file| file.read(&mut some)) {
        Ok(count) => json!(count),
        Err(error) => json!(errno_of(&error)),
    }
}

fn write_file(path: &Path) -> Value {
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => json!("ok"),
        Err(error) => json!(errno_of(&error)),
    }
}
