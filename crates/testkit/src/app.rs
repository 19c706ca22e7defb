//! A service in the test's own process, on each backend.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;

use rocket_monitor::http::{Access, Capacity};
use rocket_monitor::ingest::Limits;
use rocket_monitor::service::{Service, ServiceConfig};
use rocket_monitor::store::fault_injection::Failures;
use rocket_monitor::store::{Database, OpenOptions, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, rocket};
use crate::postgres::{TestDatabase, distributed};

#[derive(Clone, Copy, Debug)]
pub enum Backend {
    SqliteFile,
    SqliteMemory,
    Postgres,
    /// A cluster, over which the tables are distributed.
    Citus,
}

/// Runs each of the functions, which take a [`Backend`], as a test on every backend.
#[macro_export]
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite_file {
            $(#[test] fn $test() { super::$test($crate::app::Backend::SqliteFile); })*
        }
        mod sqlite_memory {
            $(#[test] fn $test() { super::$test($crate::app::Backend::SqliteMemory); })*
        }
        mod postgres {
            $(#[test] fn $test() { super::$test($crate::app::Backend::Postgres); })*
        }
        mod citus {
            $(
                #[test]
                #[ignore = "needs a cluster, named by ROCKET_MONITOR_TEST_CITUS"]
                fn $test() { super::$test($crate::app::Backend::Citus); }
            )*
        }
    };
}

/// A service in this process.
pub struct App {
    pub address: SocketAddr,
    pub failures: Failures,
    pub directory: TempDir,
    postgres: Option<TestDatabase>,
    /// None only while it is dropped. A mutex, because tests share the app between threads.
    service: Mutex<Option<Service>>,
}

impl App {
    pub fn spawn(backend: Backend) -> Self {
        Self::spawn_with(backend, Limits::default())
    }

    pub fn spawn_with(backend: Backend, limits: Limits) -> Self {
        Self::spawn_in(tempfile::tempdir().unwrap(), backend, limits, OpenOptions::default())
    }

    /// With its file, if it has one, in this directory.
    pub fn spawn_in(
        directory: TempDir,
        backend: Backend,
        limits: Limits,
        options: OpenOptions,
    ) -> Self {
        let postgres = match backend {
            Backend::SqliteFile | Backend::SqliteMemory => None,
            Backend::Postgres => Some(TestDatabase::create()),
            Backend::Citus => Some(distributed()),
        };
        let database = match backend {
            Backend::SqliteFile => Database::File(directory.path().join("rockets.db")),
            Backend::SqliteMemory => Database::Memory,
            Backend::Postgres | Backend::Citus => postgres.as_ref().unwrap().url.parse().unwrap(),
        };
        let failures = Failures::plannable();
        let store =
            Store::open(&database, &OpenOptions { failures: failures.clone(), ..options }).unwrap();
        let config = ServiceConfig {
            listeners: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
            access: Access::default(),
            capacity: Capacity { workers: 2, connections: 1_000 },
            limits,
        };
        let service = Service::start(store, config, || Ok(std::future::pending())).unwrap();
        let address = service.addresses()[0];
        Self { address, failures, directory, postgres, service: Mutex::new(Some(service)) }
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("rockets.db")
    }

    /// The `--database` argument for another process. A database in memory has none.
    pub fn database_argument(&self) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url.clone(),
            None => self.database().to_str().unwrap().to_owned(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn metrics(&self) -> String {
        String::from_utf8(self.client().get("/metrics").body).unwrap()
    }

    /// The rocket without `lastReceived`.
    pub fn rocket(&self, channel: &str, view: &str) -> Value {
        rocket(&mut self.client(), channel, view)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(service) = self.service.get_mut().unwrap().take() {
            // If it has failed, the test has failed already.
            let _ = service.stop();
        }
    }
}
