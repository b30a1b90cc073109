"""Plausible mistakes, made on purpose: does anything notice?"""
