"""Settings of nbgrader for the two assignments of the book: run its commands in this folder."""

c = get_config()  # noqa: F821, nbgrader gives it
c.CourseDirectory.course_id = "gradcampp"
