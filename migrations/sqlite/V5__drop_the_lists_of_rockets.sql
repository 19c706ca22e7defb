-- The orders that rockets are listed in are no longer kept in the database. The service keeps a copy of the rockets in
-- memory while somebody reads lists, and searches that: lists in tables cost a fleet of 300,000 rockets two thirds of the
-- messages that it could take.

DROP TABLE rockets_listed;
DROP TABLE rockets_unlisted;
DROP TABLE rockets_listing;
