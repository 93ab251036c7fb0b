#!/bin/sh
# What can go wrong with databases, through psql.
ways=psql
. "${0%/*}/20-databases.t"
