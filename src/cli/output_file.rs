//! A file that a command writes.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::store::is_sqlite_file;

/// A file that appears under its name when it is complete. A command that fails leaves what was
/// there before. Pipes and devices are written directly.
pub(super) enum OutputFile {
    Temporary { file: BufWriter<NamedTempFile>, target: PathBuf },
    Special(BufWriter<File>),
}

impl OutputFile {
    /// Fails if the path is that of an SQLite database, which no command means to overwrite.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        // A link stays a link. What is behind it is replaced.
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        if let Ok(metadata) = fs::metadata(&target) {
            if !metadata.is_file() {
                let file = File::options().write(true).open(&target)?;
                return Ok(Self::Special(BufWriter::new(file)));
            }
            if is_sqlite_file(&target)? {
                return Err(io::Error::other("is a database; give another name"));
            }
        }
        // The caller's umask applies.
        let permissions = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new()
            .prefix(".rocket-monitor-")
            .permissions(permissions)
            .tempfile_in(folder(&target))?;
        Ok(Self::Temporary { file: BufWriter::new(file), target })
    }

    /// Syncs the file, and gives it its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Temporary { file, target } => {
                let file = file.into_inner()?;
                file.as_file().sync_all()?;
                file.persist(&target)?;
                File::open(folder(&target))?.sync_all()
            }
            Self::Special(mut file) => file.flush(),
        }
    }
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Temporary { file, .. } => file.write(bytes),
            Self::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Temporary { file, .. } => file.flush(),
            Self::Special(file) => file.flush(),
        }
    }
}
