"""The documentation says what the code does: a module a page.

What is compared are names, numbers, tables, links and examples, in both directions where that can
be. Sentences are not, so that they can be written better.
"""
