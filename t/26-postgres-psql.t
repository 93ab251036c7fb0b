#!/bin/sh
# The main job, through psql.
ways=psql
. "${0%/*}/06-postgres.t"
