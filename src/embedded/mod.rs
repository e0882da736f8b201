//! A private mongod.
