//! Checks the `Host` and the `Origin` of requests against the service's own addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::dev::RequestHead;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};

use crate::http::access::{COOKIE, is_safe};
use crate::http::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A host and an optional port: `uri-host [ ":" port ]` of RFC 9110, which has no user information.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(literal) => literal.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        let is_literal = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        let is_name_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        let is_name = !host.is_empty() && host.bytes().all(is_name_byte);
        if !is_name && is_literal().is_none() {
            return None;
        }
        let port = match rest.strip_prefix(':') {
            // The port after the colon may be empty (RFC 3986, section 3.2.3).
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok()?)
            }
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Whether this is `localhost`, a loopback address, or an address that the service listens on.
    fn is_own_address(&self, listening: &[SocketAddr]) -> bool {
        if self.host.strip_suffix('.').unwrap_or(self.host).eq_ignore_ascii_case("localhost") {
            return true;
        }
        let host = self.host.trim_matches(['[', ']']);
        host.parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || listening.iter().any(|address| address.ip() == ip))
    }
}

/// A page's origin, as in RFC 6454.
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    authority: Authority<'a>,
    default_port: u16,
}

impl<'a> Origin<'a> {
    /// `None` if the text is `null`, a list of origins, malformed, or has another scheme. The
    /// service has no such origin.
    fn parse(text: &'a str) -> Option<Self> {
        let (authority, default_port) = match text.split_once("://")? {
            ("http", authority) => (authority, 80),
            ("https", authority) => (authority, 443),
            _ => return None,
        };
        Some(Self { authority: Authority::parse(authority)?, default_port })
    }

    /// Whether the page came from this host. The origin's scheme determines the default port of
    /// both, because a proxy may have terminated TLS.
    fn matches(&self, host: &Authority<'_>) -> bool {
        let port = |authority: &Authority<'_>| authority.port.unwrap_or(self.default_port);
        self.authority.host.eq_ignore_ascii_case(host.host) && port(&self.authority) == port(host)
    }
}

/// The authorities that a request names: that of its target, if that is an absolute URL, and its
/// `Host`. The target takes precedence (RFC 9112, section 3.2.2).
pub(in crate::http) struct Hosts<'a> {
    target: Option<Authority<'a>>,
    header: Option<Authority<'a>>,
}

impl<'a> Hosts<'a> {
    /// The authority that takes precedence.
    fn effective(&self) -> Option<Authority<'a>> {
        self.target.or(self.header)
    }

    /// The name of the dashboard's cookie, with the port that the browser sees. Browsers send a
    /// cookie to every port of its host, so two services there would overwrite each other's.
    ///
    /// Two services on the default ports (80 and 443), or behind a proxy that serves both under
    /// paths of one port, do share a cookie: the service knows neither the scheme nor the path.
    pub(in crate::http) fn cookie_name(&self) -> String {
        match self.effective().and_then(|host| host.port) {
            Some(port) => format!("{COOKIE}_{port}"),
            None => COOKIE.to_owned(),
        }
    }
}

pub(in crate::http) fn hosts(head: &RequestHead) -> Result<Hosts<'_>, Problem> {
    let target = match head.uri.authority() {
        Some(authority) => {
            let malformed = || {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "The request's target must be a path, or a URL like http://HOST:PORT/PATH \
                     without a user name.",
                )
            };
            let has_scheme = matches!(head.uri.scheme_str(), Some("http" | "https") | None);
            Some(
                Authority::parse(authority.as_str())
                    .filter(|_| has_scheme)
                    .ok_or_else(malformed)?,
            )
        }
        None => None,
    };
    let malformed = || {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "The Host header must be a single host name or address, with or without :PORT.",
        )
    };
    let header = single_value(head, header::HOST).map_err(|_| malformed())?;
    let header = header.map(|text| Authority::parse(text).ok_or_else(malformed)).transpose()?;
    Ok(Hosts { target, header })
}

/// The header occurs more than once, or is not text.
pub(in crate::http) struct InvalidHeader;

/// The value of a header that may occur once.
pub(in crate::http) fn single_value(
    head: &RequestHead,
    name: HeaderName,
) -> Result<Option<&str>, InvalidHeader> {
    let mut values = head.headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| InvalidHeader),
        (Some(_), Some(_)) => Err(InvalidHeader),
    }
}

/// Rejects writing requests that a page of another origin sends with the cookie: browsers send the
/// cookie from every port of its host.
pub(in crate::http) fn reject_other_origins(
    head: &RequestHead,
    hosts: &Hosts<'_>,
) -> Result<(), Problem> {
    if is_safe(&head.method) {
        return Ok(());
    }
    // The browser has compared the origins, and no page can set this header. The check of the
    // Origin can fail for own pages, because a proxy may have changed the Host.
    let is_same_origin_fetch =
        matches!(single_value(head, SEC_FETCH_SITE), Ok(Some("same-origin")));
    let host = hosts.effective();
    let is_own = is_same_origin_fetch
        || match single_value(head, header::ORIGIN) {
            Ok(None) => true,
            Ok(Some(origin)) => {
                Origin::parse(origin).zip(host).is_some_and(|(origin, host)| origin.matches(&host))
            }
            Err(InvalidHeader) => false,
        };
    if is_own {
        return Ok(());
    }
    Err(forbidden(
        head,
        "The Origin of this request is not this service's own address. If a proxy is in between, \
         configure it to pass the Host header on unchanged.",
    ))
}

/// Rejects requests of other sites' pages to a service without tokens.
pub(in crate::http) fn reject_other_sites(
    head: &RequestHead,
    hosts: &Hosts<'_>,
    listening: &[SocketAddr],
) -> Result<(), Problem> {
    if [hosts.target, hosts.header].iter().flatten().any(|host| !host.is_own_address(listening)) {
        return Err(forbidden(
            head,
            "The Host of this request is neither localhost nor the address that the service \
             listens on. To use the service under another name, start it with tokens or with \
             --allow-anonymous.",
        ));
    }
    let is_own_address =
        |text| Origin::parse(text).is_some_and(|origin| origin.authority.is_own_address(listening));
    match single_value(head, header::ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if is_own_address(origin) => Ok(()),
        Ok(_) | Err(InvalidHeader) => Err(forbidden(
            head,
            "The Origin of this request is another site. To let pages of other sites use the \
             service, start it with tokens or with --allow-anonymous.",
        )),
    }
}

fn forbidden(head: &RequestHead, detail: &str) -> Problem {
    let (method, host, origin) =
        (&head.method, head.headers.get(header::HOST), head.headers.get(header::ORIGIN));
    tracing::debug!(%method, ?host, ?origin, "refused a cross-site request");
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LISTENING: [SocketAddr; 1] =
        [SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 8088)];

    #[test]
    fn loopback_and_listening_addresses_are_own_addresses() {
        for (authority, own) in [
            ("localhost", true),
            ("LOCALHOST:8088", true),
            ("localhost.", true),
            ("localhost:", true),
            ("127.0.0.1:3000", true),
            ("127.9.9.9", true),
            ("[::1]:8088", true),
            ("192.0.2.7:8088", true),
            ("192.0.2.8", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:8088", false),
            ("null", false),
            ("%6cocalhost", false),
            ("[::2]", false),
        ] {
            assert_eq!(
                Authority::parse(authority).unwrap().is_own_address(&LISTENING),
                own,
                "{authority}"
            );
        }
    }

    #[test]
    fn text_that_is_not_host_and_port_is_rejected() {
        for text in [
            "",
            ":80",
            "localhost:80@evil.example",
            "user@localhost",
            "localhost:http",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "localhost/",
            "localhost?x",
            "local host",
            "localhost\\evil.example",
            "::1",
            "[::1",
            "[::1]x",
            "[localhost]",
            "x[::1]",
        ] {
            assert!(Authority::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_origins_as_in_rfc_6454_are_own() {
        let own = |text| {
            Origin::parse(text).is_some_and(|origin| origin.authority.is_own_address(&LISTENING))
        };
        for text in
            ["http://localhost", "https://localhost:8443", "http://[::1]:8088", "http://192.0.2.7"]
        {
            assert!(own(text), "{text}");
        }
        for text in [
            "null",
            "localhost",
            "evil.example://localhost",
            "ftp://localhost",
            "http://localhost/",
            "http://localhost:80@evil.example",
            "http://evil.example http://localhost",
            "http://localhost http://evil.example",
            "http://localhost, http://evil.example",
            "http://",
        ] {
            assert!(!own(text), "{text}");
        }
    }

    #[test]
    fn an_origin_matches_its_host_and_port() {
        for (origin, host, own) in [
            ("http://rockets.example", "rockets.example", true),
            ("http://rockets.example", "ROCKETS.example:80", true),
            ("https://rockets.example", "rockets.example", true),
            ("https://rockets.example", "rockets.example:443", true),
            ("https://rockets.example", "rockets.example:80", false),
            ("http://rockets.example:8088", "rockets.example:8088", true),
            ("http://rockets.example:3000", "rockets.example:8088", false),
            ("http://rockets.example.evil.example", "rockets.example", false),
        ] {
            let (origin, host) = (Origin::parse(origin).unwrap(), Authority::parse(host).unwrap());
            assert_eq!(origin.matches(&host), own, "{origin:?} {host:?}");
        }
    }
}
