//! libpq's password files, like `~/.pgpass`: lines of `host:port:database:user:password`, of which
//! the first match counts. Each of the first four fields may be `*`; a backslash escapes a colon or
//! a backslash.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longer files are ignored.
const MAX_BYTES: u64 = 1024 * 1024;

/// The account whose password is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    /// A name, an address, or the directory of a socket.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

impl Account<'_> {
    fn matches(&self, fields: &[String]) -> bool {
        let matches = |index: usize, value: &str| {
            fields.get(index).is_some_and(|field| field == "*" || field == value)
        };
        // The file says localhost for sockets, too.
        let host = matches(0, self.host) || (self.host.starts_with('/') && matches(0, "localhost"));
        host && matches(1, &self.port.to_string())
            && matches(2, self.database)
            && matches(3, self.user)
    }
}

/// The account's password, if the file has it. The error says why the file is ignored.
pub(super) fn find(path: &Path, account: &Account<'_>) -> Result<Option<String>, String> {
    let ignored =
        |reason: &str| format!("the password file {} is ignored: {reason}", path.display());
    let text = read(path).map_err(|reason| ignored(&reason))?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        account.matches(&fields).then(|| fields.get(4).cloned()).flatten()
    }))
}

fn read(path: &Path) -> Result<String, String> {
    // Checked before opening, because opening a pipe waits for a writer.
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("other users can read it; run chmod 600 on it".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read =
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if read as u64 > MAX_BYTES { Err("it is longer than 1 MiB".to_owned()) } else { Ok(text) }
}

/// The fields of a line. The last field is the rest of the line.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == ':' && fields.len() < 5 {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.extend(if char == '\\' { chars.next() } else { Some(char) });
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ACCOUNT: Account<'_> =
        Account { host: "db", port: 5_432, database: "rockets", user: "ground" };

    #[test]
    fn the_first_matching_line_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        let with = |text: &str, account: &Account<'_>| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            find(&file, account).unwrap()
        };
        let socket = Account { host: "/tmp", ..ACCOUNT };
        let odd = Account { database: "a:b\\c", ..ACCOUNT };
        for (text, account, password) in [
            (
                "#db:5432:rockets:ground:no\ndb:5432:rockets:ground:yes\n*:*:*:*:later",
                &ACCOUNT,
                Some("yes"),
            ),
            (
                "db:5432:rockets:other:no\ndb:5433:rockets:ground:no\n*:*:*:*:any",
                &ACCOUNT,
                Some("any"),
            ),
            ("other:*:*:*:no\nnonsense\n\n", &ACCOUNT, None),
            ("*:*:*:*:with\\:colons:and\\\\", &ACCOUNT, Some("with:colons:and\\")),
            ("*:*:a\\:b\\\\c:*:odd", &odd, Some("odd")),
            ("localhost:*:*:*:socket", &socket, Some("socket")),
            ("/tmp:*:*:*:folder", &socket, Some("folder")),
            ("localhost:*:*:*:no", &ACCOUNT, None),
        ] {
            assert_eq!(with(text, account).as_deref(), password, "{text}");
        }
    }

    #[test]
    fn files_that_others_can_read_and_directories_are_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        std::fs::write(&file, "*:*:*:*:secret").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let reason = find(&file, &ACCOUNT).unwrap_err();
        assert!(reason.contains("chmod 600") && !reason.contains("secret"), "{reason}");
        assert!(find(directory.path(), &ACCOUNT).unwrap_err().contains("not a file"));
        assert!(find(&directory.path().join("missing"), &ACCOUNT).is_err());
    }
}
