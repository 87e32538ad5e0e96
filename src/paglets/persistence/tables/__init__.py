"""The tables of the journal: functions over an open connection, called inside a unit of work.

They keep nothing, begin and end no transaction, and let errors of the database pass; the journal gives these their
meaning. Whether a row was there is what they return, not an error.
"""
