//! Parses the URL of the service.

use awc::http::Uri;

/// Parses the service's base URL: a host, and optionally a port and a path before /messages.
///
/// The result can't hold a password, so that it can be printed. No error repeats the URL, which may
/// hold one.
pub fn base_url(url: &str) -> Result<String, &'static str> {
    if url.contains('@') {
        return Err(
            "the URL of the service must not hold a user name, a password or any other @; \
                    the service takes tokens: give them by --write-token-file and \
                    --read-token-file, or by ROCKET_MONITOR_WRITE_TOKEN and \
                    ROCKET_MONITOR_READ_TOKEN",
        );
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("only http:// URLs are supported; reach a service behind TLS from its own \
                    machine");
    }
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/messages").unwrap_or(rest).trim_end_matches('/');
    if rest.is_empty() || rest.starts_with(['/', ':']) {
        return Err("the URL of the service lacks a host; give one like http://127.0.0.1:8088");
    }
    let base = format!("http://{rest}");
    if is_host_and_path(&base) {
        Ok(base)
    } else {
        Err("the URL of the service can't be used; give one like http://127.0.0.1:8088, without a \
             question mark and what follows it")
    }
}

/// Whether a URL has nothing but a host, a port and a path after its scheme.
fn is_host_and_path(url: &str) -> bool {
    let Ok(parsed) = url.parse::<Uri>() else { return false };
    let Some(authority) = parsed.authority() else { return false };
    // `Uri` accepts any text as a port, and drops a fragment.
    let port = authority.as_str().strip_prefix(authority.host());
    let has_valid_port = match port {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    };
    has_valid_port && parsed.query().is_none() && !url.contains('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_url_is_the_host_the_port_and_the_path() {
        for (url, base) in [
            ("http://127.0.0.1:8088", "http://127.0.0.1:8088"),
            ("HTTP://localhost:8088/", "http://localhost:8088"),
            ("http://localhost/messages", "http://localhost"),
            ("rockets.example:80/messages/", "http://rockets.example:80"),
            ("http://[::1]:8088", "http://[::1]:8088"),
            ("http://[::1]", "http://[::1]"),
            ("http://proxy/fleet/messages", "http://proxy/fleet"),
        ] {
            assert_eq!(base_url(url).as_deref(), Ok(base));
        }
    }

    #[test]
    fn urls_that_may_hold_a_password_are_rejected_and_not_repeated() {
        for (url, reason) in [
            ("http://u:s3cret@127.0.0.1:1/", "--write-token-file"),
            ("HTTP://u:s3cret@127.0.0.1:1/messages", "--write-token-file"),
            ("https://u:s3cret@127.0.0.1", "--write-token-file"),
            ("u:s3cret@127.0.0.1", "--write-token-file"),
            ("http://u:a/s3cret@127.0.0.1", "--write-token-file"),
            ("http://s3cret@127.0.0.1", "--write-token-file"),
            ("http://u:s3cret", "can't be used"),
            ("http://u:s3cret/127.0.0.1", "can't be used"),
            ("u:s3cret", "can't be used"),
            ("http://127.0.0.1:1?password=s3cret", "can't be used"),
            ("http://127.0.0.1:1/#s3cret", "can't be used"),
            ("http://127.0.0.1:1 s3cret", "can't be used"),
            ("http://[s3cret", "can't be used"),
            ("http://:s3cret", "lacks a host"),
            ("https://h/s3cret", "only http://"),
        ] {
            let error = base_url(url).err().unwrap_or_default();
            assert!(error.contains(reason) && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
