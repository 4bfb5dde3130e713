"""stub"""
def build(folders):
    return "nothing yet"
