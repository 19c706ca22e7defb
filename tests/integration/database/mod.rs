//! The database: its files, schema, views and plans, and the commands that look after it.

mod backup;
mod check;
mod files;
mod plans;
mod postgres_urls;
mod schema;
mod upgrade;
mod views;
