//! The words for an errno.

use std::fmt;

use rustix::io::Errno;

/// `EACCES (permission denied)`.
pub(crate) struct Named(pub(crate) Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Errno::ACCESS => "EACCES",
            Errno::AGAIN => "EAGAIN",
            Errno::BUSY => "EBUSY",
            Errno::DQUOT => "EDQUOT",
            Errno::EXIST => "EEXIST",
            Errno::FBIG => "EFBIG",
            Errno::INVAL => "EINVAL",
            Errno::IO => "EIO",
            Errno::ISDIR => "EISDIR",
            Errno::LOOP => "ELOOP",
            Errno::MFILE => "EMFILE",
            Errno::MLINK => "EMLINK",
            Errno::NAMETOOLONG => "ENAMETOOLONG",
            Errno::NODEV => "ENODEV",
            Errno::NOENT => "ENOENT",
            Errno::NOMEM => "ENOMEM",
            Errno::NOSPC => "ENOSPC",
            Errno::NOSYS => "ENOSYS",
            Errno::NOTDIR => "ENOTDIR",
            Errno::NOTEMPTY => "ENOTEMPTY",
            Errno::OPNOTSUPP => "EOPNOTSUPP",
            Errno::PERM => "EPERM",
            Errno::ROFS => "EROFS",
            Errno::XDEV => "EXDEV",
            other => return write!(f, "errno {}", other.raw_os_error()),
        };
        let text = std::io::Error::from(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        write!(f, "{name} ({text})")
    }
}
