"""Recipes as a command line gives them."""

from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.recipes.recipe import Recipe


def recipe(*arguments: str) -> Recipe:
    """The recipe of these flags, the others with their defaults."""
    return recipe_of(["test", *arguments])
