"""Every line, table, picture and JSON document that is printed."""
